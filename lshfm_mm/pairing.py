"""What two models have in common that one can mimic, as a config.

Looks at both models on a blank image, chooses a tap, and writes the config
of the distillation: short, readable, a comment per choice.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmdet.models import SingleStageDetector
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from mmrazor.registry import MODELS
from torch import Tensor, nn

from .algorithms import has_rois
from .errors import ConfigError
from .files import atomic_write
from .folding import HEADS
from .losses import check_loss_weight
from .taps import connector_config, width_of, window_of_layer
from .teacher import (
    forked_rng,
    inheritable,
    model_config,
    read_config,
    unmask,
)

PROBE = 512  # side of the blank image in pixels
MAX_HASHES = 4096
WIDTH = 79  # of a line of code
LOSSES = ('recommended', 'lshl2', 'lsh', 'l2')
PAPER_WEIGHT = 7
ROI_WEIGHT = 4  # as chosen in docs/results.md; other taps have 1


class Layer(NamedTuple):
    """A layer that is the same thing in every model, by its name."""

    name: str
    module: nn.Module
    shapes: list[tuple[int, ...]]  # of its input, or of a neck's outputs


class View(NamedTuple):
    """What there is to mimic in a model; None where there is no such."""

    kind: str
    rois: list[Layer]  # the class layers of the stages of a RoI head
    dense: Layer | None
    neck: Layer | None
    pooled: Layer | None
    one_label: bool = False  # to an image
    fcs: Sequence[Layer | None] = ()  # of each stage, the last shared FC


class Pairing(NamedTuple):
    """A tap that two models have in common."""

    algorithm: str
    why: str
    taps: dict[str, str]
    connectors: dict[str, str]
    losses: dict[str, list[str]]
    hashes: str = '4 hashes per channel'  # of LSHLoss


def write_config(
    teacher: str,
    student: str,
    out: str,
    teacher_ckpt: str | None = None,
    student_ckpt: str | None = None,
    tap: str | None = None,
    loss: str = 'recommended',
    beta: float | None = None,
    force: bool = False,
) -> str:
    """Write the config that distils a teacher into a student.

    Args:
        teacher (str): Its config, a file or ``'package::path'``.
        student (str): The student's, likewise; data and schedule are its.
        out (str): The file to write, whole or not at all.
        teacher_ckpt (str, optional): File or URL of the teacher's weights.
            Defaults to those that the model zoo names for its config.
        student_ckpt (str, optional): Weights that the student starts from.
        tap (str, optional): 'roi', 'dense', 'fpn' or 'pooled'. Defaults to
            the first of these that the models have in common; to RoIs the
            recommended recipe then adds the necks.
        loss (str): One of ``LOSSES``. Defaults to 'recommended'.
        beta (float, optional): Weight of the losses, and on the necks beside
            RoIs a quarter of it. Defaults to what the study found
            (docs/results.md), 4 on RoIs and 1 elsewhere, and for the paper's
            losses to its 7.
        force (bool): Whether ``out`` may be overwritten. Defaults to False.

    Returns:
        str: What was chosen, in a line.

    Raises:
        ConfigError: If the models have nothing in common to mimic, or an
            argument is wrong.
    """
    target = Path(out)
    if target.suffix != '.py':
        raise ConfigError(f'out: must end in .py, but got {out}')
    if target.exists() and not force:
        raise ConfigError(
            f'out: {out} exists; give another name or --force to overwrite'
        )
    for field, path in (('teacher', teacher), ('student', student)):
        if target.resolve() == Path(path).resolve():
            raise ConfigError(
                f'out: {out} is the config of the {field}; give another name'
            )
    if loss not in LOSSES:
        raise ConfigError(f'loss: must be one of {LOSSES}, but got {loss!r}')
    if beta is not None:
        check_loss_weight(beta)
    configs = [
        read_config('teacher', teacher),
        read_config('student', student),
    ]
    if teacher_ckpt is None:
        teacher_ckpt = _zoo_weights(teacher)
    models = [
        build(field, config)
        for field, config in zip(('teacher', 'student'), configs, strict=True)
    ]
    views = [
        look(field, model)
        for field, model in zip(('teacher', 'student'), models, strict=True)
    ]
    widths = None
    if tap in (None, 'pooled'):
        widths = embed(configs[1].model, *views[::-1])
    if widths is not None:
        models[1] = build('student', configs[1])
        views[1] = look('student', models[1])
    pairing = pair(views[1], views[0], tap, loss, beta)
    inherit, why_inherit = _inherit(configs, models, views, loss, student_ckpt)
    text = _render(
        dict(
            teacher=teacher,
            student=student,
            out=target,
            teacher_ckpt=teacher_ckpt,
            student_ckpt=student_ckpt,
        ),
        configs,
        views,
        pairing,
        inherit,
        why_inherit,
        widths,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as partial:
        partial.write_text(text, 'utf-8')
        _try_out(partial, models[0])
    return f'{views[0].kind} -> {views[1].kind}: {pairing.why}'


def build(field: str, config: Config) -> BaseModel:
    """Build the model of a config; no weights are loaded.

    Args:
        field (str): Which argument names it, for messages.
        config (Config): The config.

    Returns:
        BaseModel: The model, in eval mode.
    """
    cfg = model_config(field, config.model)
    if 'data_preprocessor' in config:  # where mmpretrain keeps it
        cfg.setdefault('data_preprocessor', config.data_preprocessor)
    with forked_rng():
        model = MODELS.build(cfg).eval()
    unmask(model)
    return model


@torch.no_grad()
def look(field: str, model: BaseModel) -> View:
    """Find what there is to mimic, by a pass over a blank image.

    Args:
        field (str): Which argument the model comes from, for messages.
        model (BaseModel): A detector or classifier.

    Returns:
        View: What was found.

    Raises:
        ConfigError: If the model does not run on such an image.
    """
    image = next(model.parameters()).new_zeros(1, 3, PROBE, PROBE)
    is_dense = isinstance(model, SingleStageDetector)
    is_classifier = not hasattr(model, 'bbox_head') and (
        getattr(model, 'head', None) is not None
    )
    calls: list[tuple[str, nn.Module, Any, Any]] = []
    with forked_rng():
        hooks = [
            module.register_forward_hook(_log(calls, name))
            for name, module in model.named_modules()
            if name == 'neck' or isinstance(module, nn.Linear | nn.Conv2d)
        ]
        try:
            if is_dense or is_classifier:
                result = model(image, None, mode='tensor')
            else:
                result = model.extract_feat(image)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1:]
            raise ConfigError(
                f'{field}: {type(model).__name__} does not run on a blank '
                f'image of {PROBE} x {PROBE} {reason}; write its config by '
                f'hand, as configs/examples/your_detector.py'
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
    return View(
        type(model).__name__,
        _box_layers(model),
        _source(calls, _maps(result)) if is_dense else None,
        _neck(calls),
        _source(calls, [result]) if is_classifier else None,
        is_classifier and type(model.head).__name__ == 'LinearClsHead',
        _last_fcs(model),
    )


def pair(
    student: View,
    teacher: View,
    tap: str | None = None,
    loss: str = 'recommended',
    beta: float | None = None,
) -> Pairing:
    """Choose where a student mimics a teacher.

    Args:
        student (View): The student.
        teacher (View): The teacher.
        tap (str, optional): 'roi', 'dense', 'fpn' or 'pooled'. Defaults to
            the first that is possible.
        loss (str): One of ``LOSSES``.
        beta (float, optional): Weight of the losses; see ``write_config``.

    Returns:
        Pairing: The tap with its losses.

    Raises:
        ConfigError: If the models have no such tap in common.
    """
    if tap is not None and tap not in CHOICES:
        raise ConfigError(
            f'tap: must be one of {tuple(CHOICES)}, but got {tap!r}'
        )
    reasons = []
    for name in CHOICES if tap is None else (tap,):
        weight = beta if beta is not None else _weight(name, loss)
        found = CHOICES[name](student, teacher, loss, weight)
        if isinstance(found, Pairing):
            if tap is None and name == 'roi' and loss == 'recommended':
                return _beside_rois(found, student, teacher, weight)
            return found
        reasons.append(f'{name}: {found}')
    raise ConfigError(
        f'tap: {student.kind} and {teacher.kind} cannot be paired '
        f'({"; ".join(reasons)}); take another tap or pair'
    )


def embed(
    model: ConfigDict, student: View, teacher: View
) -> tuple[int, int] | None:
    """Give a classifier an embedding as wide as its teacher, if it needs one.

    Unlike a connector it is in the student's own path, so that the classifier
    behind it can be the teacher's; export folds it away.

    Args:
        model (ConfigDict): Model config of the student; changed in place.
        student (View): The student.
        teacher (View): The teacher.

    Returns:
        tuple[int, int]: Widths before and after the embedding; None where
        there is none.
    """
    layers = student.pooled, teacher.pooled
    ours, theirs = (x and width_of(x.module, 'input') for x in layers)
    if ours is None or theirs is None or ours == theirs:
        return None
    neck, head = (ConfigDict(model.get(x) or {}) for x in ('neck', 'head'))
    if (
        neck.get('type') != 'GlobalAveragePooling'
        or head.get('type') not in HEADS
    ):
        return None
    model.neck = dict(
        type='LinearNeck',
        in_channels=ours,
        out_channels=theirs,
        gap_dim=2,
        norm_cfg=None,
    )
    model.head = dict(head, in_channels=theirs)
    return ours, theirs


def _pair_rois(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing | str:
    if not student.rois or not teacher.rois:
        lacking = student if not student.rois else teacher
        return f'{lacking.kind} has no class layer that reads RoIs'
    stages = list(zip(student.rois, teacher.rois, strict=False))
    taps, connectors, losses = {}, {}, {}
    for index, (ours, theirs) in enumerate(stages):
        name = 'roi' if len(stages) == 1 else f'roi{index}'
        fcs = student.fcs[index], teacher.fcs[index]
        if loss == 'recommended' and fcs[0] and fcs[1]:
            # The better tap (docs/results.md), if it needs no connector.
            if not _connector(name, fcs[0], fcs[1]):
                ours, theirs = fcs[0], fcs[1]
        taps[name] = _tap(ours, theirs)
        connectors.update(_connector(name, ours, theirs))
        losses[name] = _losses(loss, weight)
    return Pairing(
        'RoIMimicDistill',
        "both classify RoIs: the teacher pools the student's",
        taps,
        connectors,
        losses,
    )


def _beside_rois(
    pairing: Pairing, student: View, teacher: View, weight: float
) -> Pairing:
    """L2 on the necks, too, where these give maps of the same shapes."""
    ours, theirs = (x.neck and x.neck.shapes for x in (student, teacher))
    if not ours or ours != theirs:
        return pairing
    neck = {'fpn': "dict(layer='neck', record='output')"}
    l2 = {'fpn': _losses('relative', weight / ROI_WEIGHT)}
    return pairing._replace(
        why=f'{pairing.why}; with L2 on the necks beside it',
        taps=pairing.taps | neck,
        losses=pairing.losses | l2,
    )


def _pair_dense(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing | str:
    ours, theirs = student.dense, teacher.dense
    if ours is None or theirs is None:
        lacking = student if ours is None else teacher
        return f'{lacking.kind} has no one class layer for all levels'
    sizes = [[x[2:] for x in y.shapes] for y in (ours, theirs)]
    if sizes[0] != sizes[1]:
        return f'levels differ, {_strides(ours)} and {_strides(theirs)}'
    windows = [window_of_layer(x.module, 'input') for x in (ours, theirs)]
    if windows[0] != windows[1]:
        return f'windows differ, {windows[0]} and {windows[1]}'
    channels, side = width_of(theirs.module, 'input'), windows[1]
    assert channels is not None  # of a convolution
    entries = channels * side**2
    hashes = min(4 * entries, MAX_HASHES)
    return Pairing(
        'FeatureMimicDistill',
        f'both classify the locations of strides {_strides(ours)}',
        {'cls': _tap(ours, theirs)},
        _connector('cls', ours, theirs),
        {'cls': _losses(loss, weight, hashes=hashes)},
        f'{hashes / entries:.2g} hashes per entry of the {side} x {side} '
        f'window of {channels} channels',
    )


def _pair_necks(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing | str:
    ours, theirs = student.neck, teacher.neck
    if ours is None or theirs is None:
        lacking = student if ours is None else teacher
        return f'{lacking.kind} has no neck that gives maps'
    common = [
        x for x in ours.shapes if x[2:] in [y[2:] for y in theirs.shapes]
    ]
    if not common:
        return f'strides differ, {_strides(ours)} and {_strides(theirs)}'
    widths = [sorted({x[1] for x in y.shapes}) for y in (ours, theirs)]
    connectors, note = {}, ''
    if len(widths[0]) == len(widths[1]) == 1:
        dim: int | None = widths[1][0]
        if widths[0] != widths[1]:
            connectors['fpn'] = connector_config(
                nn.Conv2d(1, 1, 1), widths[0][0], widths[1][0]
            )
    elif ours.shapes == theirs.shapes and loss in ('recommended', 'l2'):
        dim, loss = None, 'l2' if loss == 'l2' else 'relative'
        note = '; without LSH, since widths change from level to level'
    else:
        return (
            f'widths change from level to level, {widths[0]} and {widths[1]}, '
            f'which no one connector and no LSH serve'
        )
    strides = [PROBE // x[3] for x in common]
    return Pairing(
        'FeatureMimicDistill',
        f'the necks have strides {strides} in common{note}',
        {'fpn': "dict(layer='neck', record='output', normalize=True)"},
        connectors,
        {'fpn': _losses(loss, weight, dim=dim)},
    )


def _pair_pooled(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing | str:
    ours, theirs = student.pooled, teacher.pooled
    if ours is None or theirs is None:
        lacking = student if ours is None else teacher
        return f'{lacking.kind} has no linear classifier'
    tap, why = _tap(ours, theirs), 'both classify a pooled feature'
    classes = [width_of(x.module, 'output') for x in (ours, theirs)]
    if loss == 'lshl2' and student.one_label and classes[0] == classes[1]:
        names = f'student={ours.name!r}, teacher={theirs.name!r}'
        tap = f"dict({names}, weights='correct')"
        why += ', of which those count that the teacher gets right'
    return Pairing(
        'FeatureMimicDistill',
        why,
        {'pooled': tap},
        _connector('pooled', ours, theirs),
        {'pooled': _losses(loss, weight)},
    )


CHOICES: dict[str, Callable[[View, View, str, float], Pairing | str]] = {
    'roi': _pair_rois,
    'dense': _pair_dense,
    'fpn': _pair_necks,
    'pooled': _pair_pooled,
}


def _log(calls: list[Any], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        calls.append((name, module, inputs, output))

    return hook


def _maps(result: Any) -> list[Tensor]:
    """The class scores of a dense head, the first that it gives."""
    while isinstance(result, list | tuple) and result:
        if all(isinstance(x, Tensor) for x in result):
            return list(result)
        result = result[0]
    return []


def _source(calls: list[Any], outputs: list[Any]) -> Layer | None:
    """The one layer that made all of the outputs."""
    found = [
        next((call for call in calls if call[3] is output), None)
        for output in outputs
    ]
    names = {call and call[0] for call in found}
    if len(names) != 1 or found[0] is None:
        return None
    shapes = [tuple(call[2][0].shape) for call in found if call is not None]
    return Layer(found[0][0], found[0][1], shapes)


def _neck(calls: list[Any]) -> Layer | None:
    for name, module, _, output in calls:
        if name == 'neck':
            maps = output if isinstance(output, list | tuple) else [output]
            if all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
                return Layer(name, module, [tuple(x.shape) for x in maps])
    return None


def _box_heads(model: BaseModel) -> list[tuple[str, nn.Module]]:
    """The box head of each stage of a RoI head, with its name."""
    if not has_rois(model):
        return []
    heads, name = model.roi_head.bbox_head, 'roi_head.bbox_head'
    if isinstance(heads, nn.ModuleList):
        return [(f'{name}.{i}', head) for i, head in enumerate(heads)]
    return [(name, heads)]


def _box_layers(model: BaseModel) -> list[Layer]:
    """The class layer of each stage of a RoI head."""
    layers = []
    for name, head in _box_heads(model):
        layer = getattr(head, 'fc_cls', None)
        if not isinstance(layer, nn.Linear):
            return []
        layers.append(Layer(f'{name}.fc_cls', layer, []))
    return layers


def _last_fcs(model: BaseModel) -> list[Layer | None]:
    """The last shared FC of each stage; None where there are not several."""
    layers: list[Layer | None] = []
    for name, head in _box_heads(model):
        fcs = getattr(head, 'shared_fcs', ())
        last = len(fcs) - 1
        path = f'{name}.shared_fcs.{last}'
        layers.append(Layer(path, fcs[last], []) if last > 0 else None)
    return layers


def _strides(layer: Layer) -> list[int]:
    return [PROBE // x[3] for x in layer.shapes]


def _tap(ours: Layer, theirs: Layer) -> str:
    if ours.name == theirs.name:
        return repr(ours.name)
    return f'dict(student={ours.name!r}, teacher={theirs.name!r})'


def _connector(name: str, ours: Layer, theirs: Layer) -> dict[str, str]:
    widths = [width_of(x.module, 'input') for x in (ours, theirs)]
    if widths[0] == widths[1]:
        return {}
    return {name: connector_config(theirs.module, *widths)}


def _weight(tap: str, loss: str) -> float:
    """Weight of the losses where none is given."""
    if loss != 'recommended':
        return PAPER_WEIGHT
    return ROI_WEIGHT if tap == 'roi' else 1


def _losses(
    loss: str, weight: float, hashes: int | None = None, dim: int | None = None
) -> list[str]:
    """Configs of the losses at a tap, as code."""
    lsh = ["type='LSHLoss'"]
    if hashes is not None:
        lsh.append(f'num_hashes={hashes}')
    if dim is not None:  # normalised maps: projections of variance 1
        lsh += [f'feature_dim={dim}', f'std={dim**-0.5:.4g}']
    kinds = {
        'recommended': [lsh, ["type='RelativeL2Loss'"]],
        'relative': [["type='RelativeL2Loss'"]],
        'lshl2': [lsh, ["type='FeatureL2Loss'"]],
        'lsh': [lsh],
        'l2': [["type='FeatureL2Loss'"]],
    }
    scale = [] if weight == 1 else [f'loss_weight={weight:g}']
    return [f'dict({", ".join(x + scale)})' for x in kinds[loss]]


def _zoo_weights(path: str) -> str:
    """URL of the weights that a package's metafile names for a config."""
    if '::' in path:
        try:
            return get_config(path, pretrained=True).model_path
        except (AssertionError, AttributeError, ValueError) as error:
            reason = f'the model zoo names none for {path} ({error})'
            raise ConfigError(
                f'teacher_ckpt: {reason}; give --teacher-ckpt'
            ) from error
    raise ConfigError(
        f'teacher_ckpt: is not given, and {path} is no config of a model '
        f'zoo; give --teacher-ckpt'
    )


def _inherit(
    configs: Sequence[Config],
    models: Sequence[BaseModel],
    views: Sequence[View],
    loss: str,
    student_ckpt: str | None,
) -> tuple[bool, str]:
    """Whether the student shall inherit, and why."""
    if loss != 'recommended':
        return False, 'The paper does not inherit.'
    if student_ckpt is not None:
        return False, 'The student has weights of its own.'
    necks = [x.neck and _strides(x.neck) for x in views]
    if necks[0] != necks[1]:
        return False, f'The necks differ: strides {necks[0]} and {necks[1]}.'
    taken, left = inheritable(models[1], models[0])
    if not taken:
        return False, 'No weight outside the backbones agrees in shape.'
    theirs = models[0].state_dict()
    foreign = [
        x for x in left if x not in theirs and not x.startswith('neck.fc.')
    ]
    if foreign:
        return False, f'The heads differ: the teacher has no {foreign[0]}.'
    classes = [_classes(x) for x in configs]
    if None in classes or classes[0] != classes[1]:
        layers = [x.name for x in _class_layers(views[1])]
        if not layers or any(x.startswith(tuple(layers)) for x in taken):
            return False, 'The data sets may order their classes differently.'
    total = len(taken) + len(left)
    return True, (
        f'{len(taken)} of the {total} tensors outside the backbone are taken.'
    )


def _class_layers(view: View) -> list[Layer]:
    return [*view.rois, *(x for x in (view.dense, view.pooled) if x)]


def _classes(config: Config) -> list[str] | None:
    """The classes of the training data in their order, if known."""
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None and 'type' in dataset:
        with DATASETS.switch_scope_and_registry(
            config.get('default_scope')
        ) as registry:
            known = getattr(registry.get(dataset['type']), 'METAINFO', {})
        classes = known.get('classes')
    return None if classes is None else list(classes)


def _relative(path: str, folder: Path) -> str:
    """Name a file from a folder, with slashes as configs have them."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return Path(path).absolute().as_posix()


def _render(
    paths: Mapping[str, Any],
    configs: Sequence[Config],
    views: Sequence[View],
    pairing: Pairing,
    inherit: bool,
    why_inherit: str,
    widths: tuple[int, int] | None,
) -> str:
    student = paths['student']
    if '::' not in student:
        student = _relative(student, paths['out'].parent)
    imports = ['lshfm_mm']
    for config in configs:
        extra = (config.get('custom_imports') or {}).get('imports') or []
        extra = [extra] if isinstance(extra, str) else extra
        imports += [x for x in extra if x not in imports]
    start: list[str] = []
    architecture = '_base_.model'
    if paths['student_ckpt'] or widths:
        architecture = 'student'
        start = ['student = _base_.model']
    if paths['student_ckpt']:
        checkpoint = paths['student_ckpt']
        start += [
            'student.init_cfg = dict(',
            "    type='Pretrained',",
            f'    checkpoint={checkpoint!r},',
            ')',
        ]
    if widths:
        start += [
            "# The student's width -> the teacher's; tools/export_student.py",
            '# --config folds it into the classifier.',
            'student.neck = dict(',
            "    type='LinearNeck',",
            f'    in_channels={widths[0]},',
            f'    out_channels={widths[1]},',
            '    gap_dim=2,',
            '    norm_cfg=None,',
            ')',
            f'student.head.in_channels = {widths[1]}',
        ]
    lines = [
        f'"""{_title(paths["student"])} mimics {_title(paths["teacher"])}."""',
        '',
        '# The data, the schedule and the student.',
        f'_base_ = {student!r}',
        f'custom_imports = dict(imports={imports!r})',
        '',
        *start,
        'model = dict(',
        '    _delete_=True,',
        "    _scope_='mmrazor',",
        f'    type={pairing.algorithm!r},',
        f'    architecture={architecture},',
        f'    # {why_inherit}',
        f'    inherit={inherit},',
        '    teacher=dict(',
        f'        cfg_path={paths["teacher"]!r},',
        '    ),',
        f'    teacher_ckpt={paths["teacher_ckpt"]!r},',
        '    distiller=dict(',
        "        type='LSHFMDistiller',",
        f'        # {pairing.why[0].upper()}{pairing.why[1:]}.',
        '        taps=dict(',
        *(f'            {k}={v},' for k, v in pairing.taps.items()),
        '        ),',
    ]
    if pairing.connectors:
        lines += [
            "        # The student's width -> the teacher's, for training "
            'alone.',
            '        connectors=dict(',
            *(f'            {k}={v},' for k, v in pairing.connectors.items()),
            '        ),',
        ]
    if any('LSHLoss' in x for y in pairing.losses.values() for x in y):
        lines.append(f'        # LSHLoss: {pairing.hashes}.')
    lines.append('        losses=dict(')
    for name, losses in pairing.losses.items():
        lines += [
            f'            {name}=[',
            *(f'                {x},' for x in losses),
            '            ],',
        ]
    lines += ['        ),', '    ),', ')', '']
    return '\n'.join(
        line + '  # noqa: E501' if len(line) > WIDTH else line
        for line in lines
    )


def _title(path: str) -> str:
    return Path(path.rpartition('::')[2]).stem


def _try_out(path: Path, teacher: BaseModel) -> None:
    """Build what was written, with the teacher that is at hand."""
    config = Config.fromfile(path)
    model = dict(config.model, teacher=teacher, teacher_ckpt=None)
    if 'data_preprocessor' in config:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    with forked_rng():
        MODELS.build(model)
