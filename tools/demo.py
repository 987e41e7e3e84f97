"""From nothing to a distilled detector or classifier.

Generates shapes, or takes the photographs of an aquarium; trains the teacher,
the student alone and distilled students, evaluates the exported models, prints
a table and, of detectors, draws a picture. Interrupted, it goes on where it
was; what is finished is not done again (delete the work folder for that).
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lshfm_mm import cli
from lshfm_mm.cli.chain import Chain, Run, table
from lshfm_mm.datasets import shapes
from lshfm_mm.errors import ConfigError

REPO = Path(__file__).parent.parent
# Of each task: groups of runs, one after the other; of a group two at a time
# with half of the cores each, since steps this small do not keep all busy.
# A run without a title is needed by others and stands in no table.
GROUPS: dict[str, list[dict[str, str]]] = {
    'faster_rcnn': [
        {'teacher': 'teacher', 'student': 'student alone'},
        {
            'lshfm': 'student, LSHL2 (paper)',
            'recommended': 'student, recommended',
        },
    ],
    'retinanet': [
        {
            'retinanet_teacher': 'teacher',
            'retinanet_student': 'student alone',
        },
        {
            'retinanet_l2': 'student, L2 (paper)',
            'retinanet_lsh': 'student, LSH (paper)',
            'retinanet_lshfm': 'student, LSHL2 (paper)',
            'retinanet_lsh_bf16': 'student, LSH in bfloat16',
            'retinanet_recommended': 'student, recommended',
        },
    ],
    'aquarium': [
        {
            'aquarium_teacher': 'teacher',
            'aquarium_student': 'student alone',
            'aquarium_backbone': '',  # learns from clothing
        },
        {
            'aquarium_recommended': 'student, recommended',
            'aquarium_taught': 'student, backbone taught, recommended',
        },
    ],
    'single': [
        {'single_teacher': 'teacher', 'single_student': 'student alone'},
        {
            'single_again': 'student alone, twice as long',
            'single_stage1': '',
        },
        {'single_lshfm': 'student, correct-only LSHL2 in two stages (paper)'},
    ],
    'multi': [
        {'single_teacher': '', 'single_student': ''},
        {'multi_teacher': 'teacher', 'multi_student': 'student alone'},
        {
            'multi_again': 'student alone, twice as long',
            'multi_stage1': '',
        },
        {'multi_lshfm': 'student, LSHL2 in two stages (paper)'},
    ],
}
AQUARIUM_TEACHER = 'model.teacher_ckpt=work_dirs/aquarium/aquarium_teacher.pth'
# A run -> its config, and what is changed in it.
CONFIGS: dict[str, list[str]] = {
    'teacher': ['faster-rcnn_r34_shapes'],
    'student': ['faster-rcnn_r18_shapes'],
    'lshfm': ['lshl2_roi_faster-rcnn_r34_faster-rcnn_r18_shapes'],
    'recommended': [
        'recommended_roi-fpn_faster-rcnn_r34_faster-rcnn_r18_shapes'
    ],
    'retinanet_teacher': ['retinanet_r34_shapes'],
    'retinanet_student': ['retinanet_r18_shapes'],
    'retinanet_l2': [
        'lshl2_cls_retinanet_r34_retinanet_r18_shapes',
        'model.distiller.active=[l2]',
    ],
    'retinanet_lsh': [
        'lshl2_cls_retinanet_r34_retinanet_r18_shapes',
        'model.distiller.active=[lsh]',
    ],
    'retinanet_lshfm': ['lshl2_cls_retinanet_r34_retinanet_r18_shapes'],
    'retinanet_lsh_bf16': ['lsh-bf16_cls_retinanet_r34_retinanet_r18_shapes'],
    'retinanet_recommended': [
        'recommended_fpn_retinanet_r34_retinanet_r18_shapes'
    ],
    'aquarium_teacher': ['faster-rcnn_mobilenet-v2_aquarium'],
    'aquarium_student': ['faster-rcnn_r18-w16_aquarium'],
    'aquarium_recommended': [
        'recommended_roi-fpn_faster-rcnn_mobilenet-v2_faster-rcnn_r18-w16_'
        'aquarium',
        AQUARIUM_TEACHER,
    ],
    'aquarium_backbone': ['backbone_mobilenet-v2_resnet18-w16_clothing'],
    'aquarium_taught': [
        'recommended_roi-fpn_faster-rcnn_mobilenet-v2_faster-rcnn_r18-w16-'
        'taught_aquarium',
        AQUARIUM_TEACHER,
        'model.architecture.backbone.init_cfg.checkpoint='
        'work_dirs/aquarium/aquarium_backbone.pth',
    ],
    'single_teacher': ['resnet18-w16_shapes-single'],
    'single_student': ['resnet18-w4_shapes-single'],
    'single_again': ['resnet18-w4_again_shapes-single'],
    'single_stage1': [
        'lshl2_pooled_resnet18-w16_resnet18-w4_stage1_shapes-single'
    ],
    'single_lshfm': [
        'lshl2-correct_pooled_resnet18-w16_resnet18-w4_stage2_shapes-single'
    ],
    'multi_teacher': ['resnet18-w16_shapes-multi'],
    'multi_student': ['resnet18-w4_shapes-multi'],
    'multi_again': ['resnet18-w4_again_shapes-multi'],
    'multi_stage1': [
        'lshl2_pooled_resnet18-w16_resnet18-w4_stage1_shapes-multi'
    ],
    'multi_lshfm': [
        'lshl2_pooled_resnet18-w16_resnet18-w4_stage2_shapes-multi'
    ],
}
# Of each task: a column -> where the test tool has it, and what makes it %.
BOX = {
    'AP': ('coco/bbox_mAP', 100),
    'AP50': ('coco/bbox_mAP_50', 100),
    'AP75': ('coco/bbox_mAP_75', 100),
}
COLUMNS: dict[str, dict[str, tuple[str, int]]] = {
    'faster_rcnn': BOX,
    'retinanet': BOX,
    'aquarium': BOX,
    'single': {'accuracy': ('accuracy/top1', 1)},
    'multi': {
        'mAP': ('multi-label/mAP', 1),
        'F1, mean of classes': ('multi-label/f1-score', 1),
        'F1, overall': ('multi-label/f1-score_micro', 1),
    },
}
# Where the shapes of a task are, their side in pixels, whether they are easy.
HARD = ('data/shapes', 128, False)
SHAPES = {
    'faster_rcnn': ('data/easy_shapes', 96, True),
    'retinanet': HARD,
    'single': HARD,
    'multi': HARD,
}
# Runs that read files that get_photographs and get_weights write.
PHOTOGRAPHED = ('aquarium_teacher', 'aquarium_backbone')
NUM_TRAIN, NUM_VAL = 640, 200
SEED = '-seed'  # between the name of a run and its seed


def folder_of(name: str) -> str:
    """Of the config of a run, and in ``work_dirs``."""
    return CONFIGS[name][0].rpartition('_')[2].partition('-')[0]


def run_of(name: str) -> Run:
    """A run by its name, maybe with a seed."""
    kind, _, seed = name.partition(SEED)
    config, *options = CONFIGS[kind]
    path = REPO / f'configs/{folder_of(kind)}/{config}.py'
    if seed:
        options.append(f'randomness.seed={seed}')
    return Run(name, str(path), tuple(options))


def check_photographs(runs: Sequence[str]) -> None:
    """Raise if those of a run, or the weights it starts from, lack."""
    from mmengine.config import Config

    for run in runs:
        cfg = Config.fromfile(run_of(run).config)
        weights = cfg.model.get('teacher_ckpt')
        for path, command in (
            (cfg.data_root, cfg.data_help),
            (
                weights or cfg.model.backbone.init_cfg.checkpoint,
                'python -m lshfm_mm get_weights',
            ),
        ):
            if not Path(path).exists():
                raise ConfigError(
                    f'data: {path} is not there; {command} makes it'
                )


def with_seeds(name: str, title: str, seeds: int) -> list[str]:
    """Names of a run with each seed; the teacher has one."""
    more = range(1, seeds) if title.startswith('student') else ()
    return [name, *(f'{name}{SEED}{x}' for x in more)]


def train_together(chain: Chain, runs: Sequence[str]) -> None:
    """Train runs, two at a time; when one fails, stop the others."""
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(chain.train, run_of(run)) for run in runs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            chain.stop()
            raise


def cell(values: Sequence[float]) -> str:
    """The mean of seeds, and their standard deviation."""
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def row(chain: Chain, runs: list[str], title: str, task: str) -> list[str]:
    """One line of the table, of a run with each seed."""
    from mmengine.config import Config
    from mmengine.registry import MODELS

    from lshfm_mm.utils.configs import model_config

    cfg = Config.fromfile(chain.work / f'{runs[0]}.py')
    model = MODELS.build(model_config('model', cfg.model))
    parameters = sum(p.numel() for p in model.parameters())
    metrics = [chain.evaluate(run_of(x)) for x in runs]
    return [
        title,
        *(
            cell([x * found[key] for found in metrics])
            for key, x in COLUMNS[task].values()
        ),
        f'{parameters / 1e6:.2f} M',
        f'{metrics[0]["time"]:.3f}',
    ]


def draw(chain: Chain, runs: dict[str, str], seeds: int) -> Path:
    """Detections of teacher, student alone, last run; of the first seed."""
    from mmengine.config import Config

    from lshfm_mm.insight.detections import draw_detections

    names = list(runs)
    picture = chain.work / f'{names[0].replace("teacher", "detections")}.png'
    shown = {}
    for run in (*names[:2], names[-1]):
        metrics = chain.evaluate(run_of(run))
        title = f'{runs[run]}\n{100 * metrics["coco/bbox_mAP"]:.1f} AP'
        if seeds > 1 and run != names[0]:
            title += ', first seed'
        cfg = Config.fromfile(chain.work / f'{run}.py')
        shown[title] = cfg, chain.work / f'{run}.pth'
    draw_detections(shown, picture)
    return picture


def main() -> None:
    """Do what is not done yet, then print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--task', default='faster_rcnn', choices=GROUPS)
    parser.add_argument(
        '--seeds', type=int, default=1, help='of each student of a detector'
    )
    args = parser.parse_args()
    task = args.task
    if args.seeds < 1:
        raise ConfigError(f'--seeds: must be 1 or more, not {args.seeds}')
    if args.seeds > 1 and COLUMNS[task] is not BOX:
        raise ConfigError(
            f'--seeds: {task} has one seed, not {args.seeds}; leave it out, '
            f'or take a detector'
        )
    cli.load_stack()
    from mmdet.utils import register_all_modules

    groups = GROUPS[task]
    runs = {run: title for group in groups for run, title in group.items()}
    each = {k: with_seeds(k, title, args.seeds) for k, title in runs.items()}
    start = time.monotonic()
    last = len(groups) + 2

    def step(number: int, what: str) -> None:
        minutes = (time.monotonic() - start) / 60
        print(
            f'[{number}/{last}] {what} ({minutes:.1f} min so far)', flush=True
        )

    if task in SHAPES:
        root, size, easy = SHAPES[task]
        step(1, f'generate {NUM_TRAIN} + {NUM_VAL} images in {root}')
        shapes.generate(root, NUM_TRAIN, NUM_VAL, size, 0, easy)
    else:
        step(1, 'look for the photographs, of clothing, too')
        check_photographs(PHOTOGRAPHED)
    chain = Chain(
        Path('work_dirs', folder_of(next(iter(runs)))),
        threads=max((os.cpu_count() or 1) // 2, 1),
    )
    for number, group in enumerate(groups, start=2):
        step(number, f'train: {", ".join(group)}')
        train_together(chain, [x for run in group for x in each[run]])
    step(last, 'evaluate')
    register_all_modules(init_default_scope=True)
    unit = 'image' if COLUMNS[task] is BOX else 'batch'
    head = ['', *COLUMNS[task], 'parameters', f's / test {unit}']
    runs = {run: title for run, title in runs.items() if title}
    text = table(head, [row(chain, each[x], runs[x], task) for x in runs])
    written = chain.work / f'{task}_table.md'
    written.write_text(text + '\n', 'utf-8')
    text = f'\n{text}\n\ntable: {written}'
    if COLUMNS[task] is BOX:
        text += f'\npicture: {draw(chain, runs, args.seeds)}'
    step(last, 'done')
    print(text)


if __name__ == '__main__':
    cli.run_main(main, stopped='demo: stopped; started again it goes on')
