"""From nothing to a distilled detector or classifier, on generated data.

Generates shapes, trains the teacher, the student alone and distilled students,
evaluates the exported models, prints a table and, of detectors, draws a
picture. Interrupted, it goes on where it was; what is finished is not done
again (delete the work folder for that).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS

from lshfm_mm import cli
from lshfm_mm.datasets import shapes
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.insight.detections import draw_detections
from lshfm_mm.utils.configs import model_config

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
# A run -> its config below configs/shapes, and what is changed in it.
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
        'recommended_cls_retinanet_r34_retinanet_r18_shapes'
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
    'single': {'accuracy': ('accuracy/top1', 1)},
    'multi': {
        'mAP': ('multi-label/mAP', 1),
        'F1, mean of classes': ('multi-label/f1-score', 1),
        'F1, overall': ('multi-label/f1-score_micro', 1),
    },
}
DATA = 'data/shapes'
WORK = Path('work_dirs/shapes')
SIZE = 128
NUM_TRAIN, NUM_VAL = 640, 200
SHOWN = 6
CHILDREN: list[subprocess.Popen] = []  # stopped when the demo is


def config_of(run: str) -> str:
    """Path of the config of a run."""
    return str(REPO / f'configs/shapes/{CONFIGS[run][0]}.py')


def run_tool(run: str, name: str, *args: str) -> None:
    """Run another tool of this folder; show how far it is.

    What it prints is kept in ``WORK/{run}.log``.
    """
    threads = max((os.cpu_count() or 1) // 2, 1)
    log = WORK / f'{run}.log'
    WORK.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, '-W', 'ignore', str(REPO / 'tools' / name), *args],
        env={**os.environ, 'OMP_NUM_THREADS': str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        CHILDREN.append(process)
        with log.open('a', encoding='utf-8') as file:
            for line in process.stdout:
                file.write(line)
                if 'Epoch(' in line:
                    progress = line[line.index('Epoch(') :].strip()
                    print(f'{run:>11} | {progress[:110]}', flush=True)
    if process.returncode:
        raise ConfigError(f'demo: {name} for {run} failed; see {log}')


def train(run: str) -> None:
    """Train a run, or finish it; export its plain checkpoint and config."""
    model = WORK / f'{run}.pth'
    if model.exists() and model.with_suffix('.py').exists():
        return
    folder = str(WORK / run)
    options = CONFIGS[run][1:]
    run_tool(
        run,
        'train.py',
        *(config_of(run), '--work-dir', folder, '--resume'),
        *(['--cfg-options', *options] if options else []),
    )
    last = (WORK / run / 'last_checkpoint').read_text(encoding=None).strip()
    export_student(last, str(model), force=True, config=config_of(run))


def train_together(runs: Sequence[str]) -> None:
    """Train runs, two at a time; when one fails, stop the others."""
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(train, run) for run in runs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in CHILDREN:
                child.terminate()
            raise


def evaluate(run: str) -> dict[str, float]:
    """Metrics of an exported run, and seconds per image or batch, kept."""
    result = WORK / f'{run}.json'
    if not result.exists():
        folder = WORK / run / 'test'
        config, model = (str(WORK / f'{run}.{x}') for x in ('py', 'pth'))
        run_tool(run, 'test.py', config, model, '--work-dir', str(folder))
        newest = max(folder.glob('*/*.json'), key=lambda p: p.stat().st_mtime)
        partial = result.with_suffix('.partial')
        partial.write_bytes(newest.read_bytes())
        partial.rename(result)
    return json.loads(result.read_text('utf-8'))


def row(run: str, title: str, task: str) -> list[str]:
    """One line of the table."""
    cfg = Config.fromfile(WORK / f'{run}.py')
    model = MODELS.build(model_config('model', cfg.model))
    parameters = sum(p.numel() for p in model.parameters())
    metrics = evaluate(run)
    return [
        title,
        *(f'{x * metrics[key]:.1f}' for key, x in COLUMNS[task].values()),
        f'{parameters / 1e6:.2f} M',
        f'{metrics["time"]:.3f}',
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Format rows as a Markdown table."""
    columns = zip(head, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    return '\n'.join(
        '| '
        + ' | '.join(x.ljust(w) for x, w in zip(line, widths, strict=True))
        + ' |'
        for line in (head, ['-' * width for width in widths], *rows)
    )


def draw(runs: dict[str, str]) -> Path:
    """Detections of the teacher, the student alone and the last run."""
    names = list(runs)
    picture = WORK / f'{names[0].replace("teacher", "detections")}.png'
    shown = {
        runs[run]: (Config.fromfile(WORK / f'{run}.py'), WORK / f'{run}.pth')
        for run in (*names[:2], names[-1])
    }
    draw_detections(shown, SHOWN, picture)
    return picture


def main() -> None:
    """Do what is not done yet, then print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--task', default='faster_rcnn', choices=GROUPS)
    task = parser.parse_args().task
    groups = GROUPS[task]
    runs = {
        run: title for group in groups for run, title in group.items() if title
    }
    start = time.monotonic()
    last = len(groups) + 2

    def step(number: int, what: str) -> None:
        minutes = (time.monotonic() - start) / 60
        print(
            f'[{number}/{last}] {what} ({minutes:.1f} min so far)', flush=True
        )

    step(1, f'generate {NUM_TRAIN} + {NUM_VAL} images in {DATA}')
    shapes.generate(DATA, NUM_TRAIN, NUM_VAL, SIZE, seed=0)
    for number, group in enumerate(groups, start=2):
        step(number, f'train: {", ".join(group)}')
        train_together(list(group))
    step(last, 'evaluate')
    register_all_modules(init_default_scope=True)
    unit = 'image' if COLUMNS[task] is BOX else 'batch'
    head = ['', *COLUMNS[task], 'parameters', f's / test {unit}']
    text = table(head, [row(run, runs[run], task) for run in runs])
    written = WORK / f'{task}_table.md'
    written.write_text(text + '\n', 'utf-8')
    text = f'\n{text}\n\ntable: {written}'
    if COLUMNS[task] is BOX:
        text += f'\npicture: {draw(runs)}'
    step(last, 'done')
    print(text)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('demo: stopped'))
    cli.run_main(main)
