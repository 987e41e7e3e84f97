"""From nothing to a distilled detector, on data that it generates.

Generates shapes, trains the teacher, the student alone, and students with the
paper's losses and with the recommended recipe, evaluates them with
COCO mAP, prints a table and draws a picture. Interrupted, it goes on where it
was; what is finished is not done again (delete the work folder for that).
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

from mmdet.apis import init_detector
from mmengine.config import Config

from lshfm_mm import cli, shapes
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student, student_config
from lshfm_mm.picture import draw_detections

REPO = Path(__file__).parent.parent
# Of each detector: runs, two at a time with half of the cores each, since
# steps this small do not keep all cores busy.
RUNS = {
    'faster_rcnn': {
        'teacher': 'teacher',
        'student': 'student alone',
        'lshfm': 'student, LSHL2 (paper)',
        'recommended': 'student, recommended',
    },
    'retinanet': {
        'teacher': 'teacher',
        'student': 'student alone',
        'l2': 'student, L2 (paper)',
        'lsh': 'student, LSH (paper)',
        'lshfm': 'student, LSHL2 (paper)',
        'lsh_bf16': 'student, LSH in bfloat16',
        'recommended': 'student, recommended',
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
    name = run if run.startswith('retinanet') else f'faster_rcnn_{run}'
    return str(REPO / f'configs/shapes/{name}.py')


def runs_of(detector: str) -> dict[str, str]:
    """Name of a run, as its files have it -> its title."""
    prefix = '' if detector == 'faster_rcnn' else f'{detector}_'
    return {prefix + run: title for run, title in RUNS[detector].items()}


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
        with log.open('a') as file:
            for line in process.stdout:
                file.write(line)
                if 'Epoch(' in line:
                    progress = line[line.index('Epoch(') :].strip()
                    print(f'{run:>11} | {progress[:110]}', flush=True)
    if process.returncode:
        raise ConfigError(f'demo: {name} for {run} failed; see {log}')


def train(run: str) -> None:
    """Train a run, or finish it, and export a plain checkpoint."""
    model = WORK / f'{run}.pth'
    if model.exists():
        return
    folder = str(WORK / run)
    run_tool(run, 'train.py', config_of(run), '--work-dir', folder, '--resume')
    last = (WORK / run / 'last_checkpoint').read_text().strip()
    export_student(last, str(model))


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
    """COCO metrics of a run and seconds per image, kept in a JSON file."""
    result = WORK / f'{run}.json'
    if not result.exists():
        folder = WORK / run / 'test'
        model = str(WORK / f'{run}.pth')
        run_tool(
            run, 'test.py', config_of(run), model, '--work-dir', str(folder)
        )
        newest = max(folder.glob('*/*.json'), key=lambda p: p.stat().st_mtime)
        partial = result.with_suffix('.partial')
        partial.write_text(newest.read_text())
        partial.rename(result)
    return json.loads(result.read_text())


def row(run: str, title: str, metrics: dict[str, float]) -> list[str]:
    """One line of the table."""
    cfg = student_config(Config.fromfile(config_of(run)))
    model = init_detector(cfg, device='cpu')
    parameters = sum(p.numel() for p in model.parameters())
    scores = [metrics[f'coco/bbox_mAP{x}'] for x in ('', '_50', '_75')]
    return [
        title,
        *(f'{100 * score:.1f}' for score in scores),
        f'{parameters / 1e6:.2f} M',
        f'{metrics["time"]:.3f}',
    ]


def table(rows: list[list[str]]) -> str:
    """Format rows as a Markdown table."""
    head = ['', 'AP', 'AP50', 'AP75', 'parameters', 's / image']
    columns = zip(head, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    return '\n'.join(
        '| '
        + ' | '.join(x.ljust(w) for x, w in zip(line, widths, strict=True))
        + ' |'
        for line in (head, ['-' * width for width in widths], *rows)
    )


def main() -> None:
    """Do what is not done yet, then print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--detector', default='faster_rcnn', choices=RUNS)
    runs = runs_of(parser.parse_args().detector)
    names = list(runs)
    teacher, student = names[:2]
    os.chdir(REPO)
    start = time.monotonic()

    def step(number: int, what: str) -> None:
        minutes = (time.monotonic() - start) / 60
        print(f'[{number}/5] {what} ({minutes:.1f} min so far)', flush=True)

    step(1, f'generate {NUM_TRAIN} + {NUM_VAL} images in {DATA}')
    shapes.generate(DATA, NUM_TRAIN, NUM_VAL, SIZE, seed=0)
    for number, group in enumerate((names[:2], names[2:]), start=2):
        step(number, f'train: {", ".join(runs[run] for run in group)}')
        train_together(group)
    step(4, 'evaluate')
    text = table([row(run, runs[run], evaluate(run)) for run in runs])
    step(5, 'draw')
    picture = WORK / f'{teacher.replace("teacher", "detections")}.png'
    shown = {
        runs[run]: (
            student_config(Config.fromfile(config_of(run))),
            WORK / f'{run}.pth',
        )
        for run in (teacher, student, names[-1])
    }
    draw_detections(shown, SHOWN, picture)
    written = picture.with_name(picture.stem + '_table.md')
    written.write_text(text + '\n')
    step(5, 'done')
    print(f'\n{text}\n\npicture: {picture}\ntable: {written}')


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('demo: stopped'))
    cli.run(main)
