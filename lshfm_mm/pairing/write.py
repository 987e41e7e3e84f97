"""What two models have in common that one can mimic, as a config.

Looks at both models on a blank image, chooses a tap, and writes the config
of the distillation: short, readable, a comment per choice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from mmrazor.registry import MODELS

from ..errors import ConfigError, check_loss_weight
from ..teachers.inherit import inheritable
from ..utils.configs import read_config
from ..utils.files import atomic_write
from ..utils.rng import forked_rng
from .inspect import View, _class_layers, _strides, build, look
from .pair import LOSSES, Pairing, _relative, embed, pair

WIDTH = 79  # of a line of code


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
