"""From nothing to a distilled detector, on data that it generates.

Generates shapes, trains the teacher, the student alone, the student with the
paper's LSHL2 and the student with the recommended recipe, evaluates them with
COCO mAP, prints a table and draws a picture. Interrupted, it goes on where it
was; what is finished is not done again (delete the work folder for that).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mmdet.apis import init_detector
from mmengine.config import Config

from lshfm_mm import cli, shapes
from lshfm_mm.export import export_student, student_config
from lshfm_mm.picture import draw_detections

REPO = Path(__file__).parent.parent
RUNS = {
    'teacher': 'teacher',
    'student': 'student alone',
    'lshfm': 'student, LSHL2 (paper)',
    'recommended': 'student, recommended',
}
DATA = 'data/shapes'
WORK = Path('work_dirs/shapes')
SIZE = 128
NUM_TRAIN, NUM_VAL = 800, 200
SHOWN = 6


def run_tool(name: str, *args: str) -> None:
    """Run another tool of this folder; stop with its error."""
    command = [sys.executable, '-W', 'ignore', str(REPO / 'tools' / name)]
    status = subprocess.run([*command, *args]).returncode
    if status:
        sys.exit(f'error: {name} {" ".join(args)} ended with status {status}')


def config_of(run: str) -> str:
    """Path of the config of a run."""
    return f'configs/shapes/faster_rcnn_{run}.py'


def train(run: str) -> Path:
    """Train a run, or finish it, and return its plain checkpoint."""
    model = WORK / f'{run}.pth'
    if not model.exists():
        folder = WORK / run
        run_tool(
            'train.py', config_of(run), '--work-dir', str(folder), '--resume'
        )
        last = (folder / 'last_checkpoint').read_text().strip()
        export_student(last, str(model))
    return model


def evaluate(run: str, model: Path) -> dict[str, float]:
    """COCO metrics of a run and seconds per image, kept in a JSON file."""
    result = WORK / f'{run}.json'
    if not result.exists():
        folder = WORK / run / 'test'
        run_tool(
            'test.py', config_of(run), str(model), '--work-dir', str(folder)
        )
        newest = max(folder.glob('*/*.json'), key=lambda p: p.stat().st_mtime)
        partial = result.with_suffix('.partial')
        partial.write_text(newest.read_text())
        partial.rename(result)
    return json.loads(result.read_text())


def row(run: str, metrics: dict[str, float]) -> list[str]:
    """One line of the table."""
    cfg = Config.fromfile(config_of(run))
    seconds = metrics['time'] / cfg.test_dataloader.batch_size
    model = init_detector(student_config(cfg), device='cpu')
    parameters = sum(p.numel() for p in model.parameters())
    return [
        RUNS[run],
        *(
            f'{100 * metrics["coco/bbox_" + key]:.1f}'
            for key in ('mAP', 'mAP_50', 'mAP_75')
        ),
        f'{parameters / 1e6:.2f} M',
        f'{seconds:.4f}',
    ]


def table(rows: list[list[str]]) -> str:
    """Format rows as a Markdown table."""
    head = ['', 'AP', 'AP50', 'AP75', 'parameters', 's / image']
    widths = [
        max(map(len, column)) for column in zip(head, *rows, strict=True)
    ]
    rule = ['-' * width for width in widths]
    return '\n'.join(
        '| '
        + ' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))
        + ' |'
        for line in (head, rule, *rows)
    )


def main() -> None:
    """Do what is not done yet, then print and draw."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    start = time.monotonic()

    def step(number: int, what: str) -> None:
        minutes = (time.monotonic() - start) / 60
        print(f'[{number}/6] {what} ({minutes:.1f} min so far)', flush=True)

    step(1, f'shapes: {NUM_TRAIN} + {NUM_VAL} images in {DATA}')
    shapes.generate(DATA, NUM_TRAIN, NUM_VAL, SIZE, seed=0)
    metrics: dict[str, Any] = {}
    models = {}
    for number, (run, what) in enumerate(RUNS.items(), start=2):
        step(number, f'train and evaluate: {what}')
        models[run] = train(run)
        metrics[run] = evaluate(run, models[run])
    step(6, 'table and picture')
    text = table([row(run, metrics[run]) for run in RUNS])
    (WORK / 'table.md').write_text(text + '\n')
    picture = WORK / 'detections.png'
    draw_detections(
        {
            RUNS[run]: (student_config(Config.fromfile(config_of(run))), model)
            for run, model in models.items()
            if run != 'lshfm'
        },
        SHOWN,
        picture,
    )
    print(f'\n{text}\n\npicture: {picture}\ntable: {WORK / "table.md"}')


if __name__ == '__main__':
    cli.run(main)
