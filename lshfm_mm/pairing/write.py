"""The config that distils a teacher into a student, a comment per choice."""

import os
from pathlib import Path
from typing import Any

import jinja2
from mmengine.config import Config
from mmengine.config.utils import _get_cfg_metainfo, _get_package_and_cfg_path
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from mmengine.utils import get_installed_path
from mmrazor.registry import MODELS

from ..errors import ConfigError, check_choice, check_loss_weight
from ..export.student import student_config
from ..teachers.inherit import inheritable
from ..utils.choices import LOSSES
from ..utils.configs import imports_of, model_of, read_config
from ..utils.files import atomic_write, local_file
from ..utils.rng import forked_rng
from .embedding import add_embedding
from .expected import expectation
from .inspect import View, inspect_config
from .pair import CWD_MAX_NORM, Pairing, choose_pairing

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
        tap (str, optional): 'roi', 'dense', 'memory', 'fpn' or 'pooled'.
            Defaults to the first of these that the models have in common. The
            recommended recipe then adds the necks to RoIs, and takes the
            necks where a dense head is inherited.
        loss (str): One of ``LOSSES``. Defaults to 'recommended'.
        beta (float, optional): Weight of the losses, and on the necks beside
            RoIs a quarter of it; 0 writes the control, which starts alike and
            mimics nothing. Defaults to what the study found
            (docs/results.md): 4 on RoIs and class towers, 6 for classifiers,
            160 for CWD, but 10 for that of detectors with RoIs; to the
            paper's 7 for its losses of detectors and 6 for those of
            classifiers with one label; to 1 elsewhere.
        force (bool): Whether ``out`` may be overwritten. Defaults to False.

    Returns:
        str: What was chosen, in a line.

    Raises:
        ConfigError: If the models have nothing in common to mimic, or an
            argument is wrong.
    """
    target = Path(out)
    _check_out(target, force, teacher, student)
    check_choice('loss', loss, LOSSES)
    if beta is not None:
        check_loss_weight(beta)
    teacher_config = student_config(read_config('teacher', teacher))
    config = read_config('student', student)
    _check_alone(student, config)
    base, new_style = _base(student, config, target.parent)
    if teacher_ckpt is None:
        teacher_ckpt = _zoo_weights(teacher)
    _check_weights(teacher_ckpt=teacher_ckpt, student_ckpt=student_ckpt)
    theirs = inspect_config('teacher', teacher_config)
    ours = inspect_config('student', config)
    widths = None
    if tap in (None, 'pooled'):
        widths = add_embedding(config.model, ours, theirs)
        if widths is not None:
            ours = inspect_config('student', config)
    configs = config, teacher_config
    inherit, why_inherit = _inherit(ours, theirs, configs, loss, student_ckpt)
    pairing = choose_pairing(ours, theirs, tap, loss, beta, inherit)
    others = imports_of(teacher_config) + imports_of(config)
    text = _render(
        base=base,
        new_style=new_style,
        imports=[*dict.fromkeys(['lshfm_mm', *others])],
        student_name=_stem(student),
        teacher_name=_stem(teacher),
        teacher=teacher,
        teacher_ckpt=teacher_ckpt,
        student_ckpt=student_ckpt,
        pairing=pairing,
        inherit=inherit,
        why_inherit=why_inherit,
        widths=widths,
        max_norm=_max_norm(config, pairing),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as partial:
        partial.write_text(text, 'utf-8')
        _try_out(partial, theirs.model)
    chosen = f'{theirs.kind} -> {ours.kind}: {pairing.why}'
    if loss == 'recommended' and tap is beta is None:
        stays = inherit and not config.get('load_from')
        chosen += expectation(pairing, ours, stays)
    return chosen


def _check_out(target: Path, force: bool, teacher: str, student: str) -> None:
    if target.suffix != '.py':
        raise ConfigError(f'out: must end in .py, but got {target}')
    if target.exists() and not force:
        raise ConfigError(
            f'out: {target} exists; give another name or --force to overwrite'
        )
    for field, path in (('teacher', teacher), ('student', student)):
        if target.resolve() == Path(path).resolve():
            raise ConfigError(
                f'out: {target} is the config of the {field}; give another '
                f'name'
            )


def _check_alone(student: str, config: Config) -> None:
    if 'architecture' in config.model:
        raise ConfigError(
            f'student: {student} is the config of a distillation; give that '
            f'of its student alone'
        )


def _check_weights(**named: str | None) -> None:
    for field, path in named.items():
        if path is not None and '://' not in path:
            local_file(field, path)


def _zoo_weights(path: str) -> str:
    """URL of the weights that a package's metafile names for a config."""
    if '::' not in path:
        raise ConfigError(
            f'teacher_ckpt: is not given, and {path} is no config of a model '
            f'zoo; give --teacher-ckpt'
        )
    package, name = _get_package_and_cfg_path(path)
    try:
        return _get_cfg_metainfo(get_installed_path(package), name)['Weights']
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f'teacher_ckpt: the model zoo names none for {path}; give '
            f'--teacher-ckpt'
        ) from error


def _inherit(
    student: View,
    teacher: View,
    configs: tuple[Config, Config],
    loss: str,
    student_ckpt: str | None,
) -> tuple[bool, str]:
    """Whether the student shall inherit, and why."""
    if loss not in ('recommended', 'cwd'):
        return False, 'The paper does not inherit.'
    if student_ckpt is not None:
        return False, 'The student has weights of its own.'
    necks = [x.neck and x.neck.strides for x in (teacher, student)]
    if necks[0] != necks[1]:
        return False, f'The necks differ: strides {necks[0]} and {necks[1]}.'
    taken, left = inheritable(student.model, teacher.model)
    if not taken:
        return False, 'No weight outside the backbones agrees in shape.'
    known = teacher.model.state_dict()
    for key in left:
        if key not in known and not key.startswith('neck.fc.'):
            return False, f'The heads differ: the teacher has no {key}.'
    classes: list[Any] = [_classes(config) for config in configs]
    if None in classes:  # in a file or in names of folders: the same ones?
        classes = [_data(config) for config in configs]
    if classes[0] is None or classes[0] != classes[1]:
        layers = tuple(layer.name for layer in student.class_layers)
        if not layers or any(key.startswith(layers) for key in taken):
            return False, 'The data sets may order their classes differently.'
    kept = dict.fromkeys(key.rpartition('.')[0] for key in left)
    own = f', not those of {", ".join(kept)}' if left else ''
    return True, (
        f'{len(taken)} of the {len(taken) + len(left)} keys outside the '
        f'backbone are taken{own}.'
    )


def _classes(config: Config) -> list[str] | None:
    """The classes of the training data in their order, if known."""
    dataset = _dataset(config)
    classes = (dataset.get('metainfo') or {}).get('classes')
    classes = classes or dataset.get('classes')  # of mmpretrain
    if classes is None and 'type' in dataset:
        with DATASETS.switch_scope_and_registry(
            config.get('default_scope')
        ) as registry:
            known = getattr(registry.get(dataset['type']), 'METAINFO', {})
        classes = known.get('classes')
    return None if classes is None else list(classes)


def _data(config: Config) -> dict[str, Any] | None:
    """What tells which training data a config reads, if anything does."""
    data = {
        key: value
        for key, value in _dataset(config).items()
        if key not in ('pipeline', 'filter_cfg', '_scope_')
    }
    return data if data.keys() - {'type'} else None


def _dataset(config: Config) -> dict[str, Any]:
    """The innermost training data set."""
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset


def _max_norm(config: Config, pairing: Pairing) -> int | None:
    """Of the gradients with CWD, if the student's config does not say it."""
    wrapper = config.get('optim_wrapper')
    by_cwd = 'ChannelWiseDivergence' in str(pairing.losses)
    if by_cwd and wrapper and 'clip_grad' not in wrapper:
        return CWD_MAX_NORM
    return None


def _render(**values: Any) -> str:
    """Fill in the template; lines too long for the linter say so."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters['repr'] = repr
    template = Path(__file__).with_name('config.py.j2').read_text('utf-8')
    lines = environment.from_string(template).render(values).split('\n')
    return '\n'.join(
        f'{line}  # noqa: E501' if len(line) > WIDTH else line
        for line in lines
    )


def _base(student: str, config: Config, folder: Path) -> tuple[str, bool]:
    """What a config names as its base, and whether that is of the new style.

    One of the new style is a module, seen from the folder of the config.
    """
    if '::' in student:
        return student, False
    path = _relative(student, folder)
    if not Config._is_lazy_import(student):
        return path, False
    parts = path.removesuffix('.py').split('/')
    up = parts.count('..')
    if not all(part.isidentifier() for part in parts[up:]):
        raise ConfigError(
            f'student: {path} is of the new style and no name of a module, so '
            f'that no config can build on it; write _ for - and . in it'
        )
    return '.' * (up + 1) + '.'.join(parts[up:]), True


def _relative(path: str, folder: Path) -> str:
    """Name a file from a folder, with slashes as configs have them."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return Path(path).absolute().as_posix()


def _stem(path: str) -> str:
    return Path(path.rpartition('::')[2]).stem


def _try_out(path: Path, teacher: BaseModel) -> None:
    """Build what was written, with the teacher that is at hand."""
    model = model_of('out', Config.fromfile(path))
    with forked_rng():
        MODELS.build(dict(model, teacher=teacher, teacher_ckpt=None))
