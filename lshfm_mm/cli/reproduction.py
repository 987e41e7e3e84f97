"""The rows of published tables, and the trainings that a row takes.

A row is a pair of models on a data set. Its configs are those in ``configs``
that are named after both; what was published stands in their metafiles.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..utils.shipped import shipped
from .chain import Run

CONFIGS = shipped('configs').resolve()


class Recipe(NamedTuple):
    """What all rows of a data set have in common.

    Attributes:
        folder (str): Of the configs.
        suffix (str): Of their names.
        images (int): Of training.
        batch (int): Images to a step, on all GPUs together.
        metric (str): Its name in the log of an evaluation.
        factor (int): Makes percent of it.
    """

    folder: str
    suffix: str
    images: int
    batch: int
    metric: str
    factor: int = 1


TOP1, MAP = 'accuracy/top1', 'multi-label/mAP'
RECIPES = {
    'voc': Recipe('voc', 'voc0712', 16551, 8, 'pascal_voc/AP50', 100),
    'cifar100': Recipe('cifar100', 'cifar100', 50000, 64, TOP1),
    'imagenet': Recipe('imagenet', 'in1k', 1281167, 256, TOP1),
    'voc07': Recipe('voc07', 'voc07', 5011, 16, MAP),
    'coco14': Recipe('coco14', 'coco14', 82081, 32, MAP),
    # Of mmdet's schedules; the paper has no such rows.
    'coco': Recipe('distill', 'coco', 117266, 16, 'coco/bbox_mAP', 100),
}
# Named before the others, and not like them.
RENAMED = {
    'faster_rcnn_lshfm': 'lshl2_roi_faster-rcnn_r101_faster-rcnn_r50_1x_coco'
}
LOSSES = {'l2': ['l2'], 'lsh': ['lsh'], 'lshl2': ['lsh', 'l2']}  # -> taps
UNIFORM = 'model.distiller.taps.{}.weights=uniform'
AVERAGE = 'average_10.pth'  # the mean of the last ten epochs


class Arm(NamedTuple):
    """A student of a row.

    Attributes:
        title (str): For the table.
        runs (tuple[Run, ...]): One after the other; the last one counts.
        published (float, optional): What it reached, in percent.
    """

    title: str
    runs: tuple[Run, ...]
    published: float | None = None


class Teacher(NamedTuple):
    """Of a row: its config, weights, and what was published of it."""

    config: str
    checkpoint: str
    published: float | None

    @property
    def run(self) -> Run:
        """What makes its weights."""
        return Run(Path(self.config).stem, self.config)

    @property
    def is_there(self) -> bool:
        """Whether its weights are, or lie on a server."""
        return '://' in self.checkpoint or Path(self.checkpoint).exists()


class Row(NamedTuple):
    """A pair of models on a data set.

    Attributes:
        recipe (Recipe): Of the set.
        epochs (int): Of each training.
        teacher (Teacher): Of all students.
        arms (dict[str, Arm]): Its students, by short names.
    """

    recipe: Recipe
    epochs: int
    teacher: Teacher
    arms: dict[str, Arm]

    @property
    def steps(self) -> int:
        """Of a training; the last one of an epoch may have fewer images."""
        return self.epochs * -(-self.recipe.images // self.recipe.batch)


class Name(NamedTuple):
    """What the name of a distillation's config says."""

    path: Path
    row: str
    method: str
    more: str  # stage1, 1x and so on
    student: str


def find_rows() -> dict[str, list[Name]]:
    """All rows and their configs."""
    rows: dict[str, list[Name]] = {}
    for data, recipe in RECIPES.items():
        for path in sorted((CONFIGS / recipe.folder).glob('*.py')):
            name = _read_name(path, data)
            if name is not None:
                rows.setdefault(name.row, []).append(name)
    return rows


def _read_name(path: Path, data: str) -> Name | None:
    """Take the name of a config apart; that of one model gives None."""
    words = RENAMED.get(path.stem, path.stem).split('_')
    if len(words) < 5:  # METHOD_TAPS_TEACHER_STUDENT_SET at least
        return None
    method, _, *models, suffix = words
    more = models.pop() if len(models) % 2 else ''
    middle = len(models) // 2
    teacher, student = models[:middle], models[middle:]
    row = [data, *teacher[:-1], f'{teacher[-1]}_{student[-1]}']
    if more.endswith('x'):
        row.append(more)
    alone = '_'.join([*student, suffix])
    return Name(path, ' '.join(row), method, more, alone)


def read_row(row: str) -> Row:
    """Plan the trainings of a row, one of :func:`find_rows`."""
    from ..utils.configs import read_config  # needs the stack

    names = find_rows()[row]
    recipe = RECIPES[row.split()[0]]
    metafile = CONFIGS / recipe.folder / 'metafile.yml'
    models = yaml.safe_load(metafile.read_text('utf-8'))['Models']
    said = {x['Name']: x['Metadata'] for x in models}
    first = said[names[0].path.stem]
    cfg = read_config('config', str(names[0].path))
    teacher, student = cfg.model.teacher.cfg_path, first.get('Student')
    if student is None:
        alone = str(names[0].path.with_name(f'{names[0].student}.py'))
        published = _published(said[Path(teacher).stem])
    else:
        alone = student['Config']
        published = first['Teacher']['Metrics']['box AP']
    run = Run(Path(alone).stem, alone)
    arms = {
        'student': Arm(
            'student alone', (run,), _published(said.get(run.name, {}))
        )
    }
    for name in names:
        for key, arm in _arms(name, said[name.path.stem]):
            arms[key] = arm
    return Row(
        recipe,
        cfg.train_cfg.max_epochs,
        Teacher(teacher, cfg.model.teacher_ckpt, published),
        arms,
    )


def _published(metadata: dict[str, Any], loss: str = '') -> float | None:
    """What a metafile says was published of a config, or of a loss in it."""
    for key, value in metadata.items():
        if key.startswith('Published'):
            by_loss = value if isinstance(value, dict) else {'': value}
            found = by_loss.get(loss)  # or a reason why there is none
            return found if isinstance(found, int | float) else None
    return None


def _arms(name: Name, said: dict[str, Any]) -> Iterator[tuple[str, Arm]]:
    """The students of a config."""
    path, stem = str(name.path), name.path.stem
    if name.more == 'stage1':
        return
    if name.more == 'stage2':
        before = stem.replace('stage2', 'stage1')
        runs = (
            Run(before, str(name.path.with_stem(before))),
            Run(stem, path),
        )
        yield 'two-stages', Arm('LSHL2, two stages', runs, _published(said))
    elif name.row.startswith(('voc07 ', 'coco14 ')):
        yield 'one-stage', Arm('LSHL2, one stage', (Run(stem, path),))
    elif name.method == 'lshl2-correct':
        run = Run(stem, path, checkpoint=AVERAGE)
        arm = Arm('LSHL2, correct only', (run,), _published(said))
        for loss, taps in LOSSES.items():
            options = _active(loss) + [UNIFORM.format(x) for x in taps]
            run = Run(f'{stem}_{loss}', path, tuple(options), AVERAGE)
            yield loss, Arm(loss.upper(), (run,))
        yield 'correct', arm
    elif name.method == 'lshl2':
        for loss in LOSSES:
            changes = tuple(_active(loss))
            run = Run(f'{stem}_{loss}' if changes else stem, path, changes)
            title = loss.upper()
            yield loss, Arm(title, (run,), _published(said, title))
    else:
        yield name.method, Arm(name.method, (Run(stem, path),))


def _active(loss: str) -> list[str]:
    return [] if loss == 'lshl2' else [f'model.distiller.active=[{loss}]']
