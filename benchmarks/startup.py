"""Time from the command to the end of the first training step, by part.

Our tools/train.py distils Faster R-CNN R34 into R18, mmdet's own trains the
student alone on the same annotations; each run is a new process, and the two
take turns. A few generated images stand for all images of the annotations.
"""

import argparse
import json
import runpy
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from machine import commit, measured, processor

REPO = Path(__file__).resolve().parent.parent
SHAPES = REPO / 'configs/shapes'
PAIR = 'faster-rcnn_r34_faster-rcnn_r18_shapes.py'
CONFIGS = {
    'mmdet': 'faster-rcnn_r18_shapes.py',
    'ours': f'recommended_roi-fpn_{PAIR}',
}
BOXES = 860 / 118  # to an image, as in COCO
POLYGON = [
    round(10 + i / 10, 1) for i in range(90)
]  # makes a file of its size
PARTS = ('imports', 'annotations', 'building', 'loading', 'calibration')
PARTS += ('audit', 'first step', 'rest', 'total')


class Clock:
    """Seconds of the parts; of a part within another the inner one counts."""

    def __init__(self, start: float) -> None:
        self.seconds: Counter[str] = Counter()
        self.last, self.running = start, ['imports']

    def switch(self) -> None:
        """Give the running part the time since the last switch."""
        now = time.time()
        self.seconds[self.running[-1]] += now - self.last
        self.last = now

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count the calls of a function as a part."""
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.switch()
            self.running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self.running.pop()

        setattr(owner, name, timed)


def measure(start: str, tool: str, *arguments: str) -> None:
    """Run a tool up to its first step; print the seconds as JSON."""
    clock = Clock(float(start))
    from mmdet.datasets import CocoDataset
    from mmengine.runner import EpochBasedTrainLoop, Runner

    watched: list[tuple[Any, str, str]] = [
        (CocoDataset, 'full_init', 'annotations'),
        *((Runner, x, 'building') for x in ('__init__', 'build_train_loop')),
        (EpochBasedTrainLoop, 'run_epoch', 'first step'),
    ]
    if tool == str(REPO / 'tools/train.py'):
        from lshfm_mm.cli import training  # noqa: F401  as the tool does
        from lshfm_mm.datasets import check_files
        from lshfm_mm.hooks import LSHCalibrationHook
        from lshfm_mm.teachers import loading
        from lshfm_mm.training.audit import Audit

        watched += [
            (check_files, 'check_data', 'annotations'),
            (loading, 'load_teacher', 'loading'),
            (LSHCalibrationHook, 'before_train', 'calibration'),
            *((Audit, x, 'audit') for x in ('_begin', '_observe', '_end')),
        ]
    runpy.run_path(tool)  # its imports
    for part in watched:
        clock.watch(*part)
    call_hook = Runner.call_hook

    def until(self: Runner, name: str, **kwargs: Any) -> None:
        call_hook(self, name, **kwargs)
        if name == 'after_train_iter':
            clock.switch()
            print(f'\n{json.dumps(clock.seconds)}', flush=True)
            sys.exit()

    Runner.call_hook = until
    clock.switch()
    clock.running = ['rest']
    sys.argv = [tool, *arguments]
    runpy.run_path(tool, run_name='__main__')


def write_annotations(path: Path, images: int) -> str:
    """Annotations of many images in the place of a few; what was written."""
    few = json.loads(path.read_text('utf-8'))
    box = dict(few['annotations'][0], bbox=[10, 10, 40, 40], area=1600)
    box['segmentation'] = [POLYGON]
    count = len(few['images'])
    few['images'] = [
        few['images'][i % count] | {'id': i} for i in range(images)
    ]
    boxes = range(round(images * BOXES))
    few['annotations'] = [
        box | {'id': j, 'image_id': int(j / BOXES)} for j in boxes
    ]
    path.write_text(json.dumps(few), 'utf-8')
    size = path.stat().st_size / 1e6
    return f'{images:,} images, {len(boxes):,} boxes, {size:.0f} MB'


def run(name: str, tool: Path, root: Path) -> dict[str, float]:
    """Seconds of one start."""
    options = [
        f'train_dataloader.dataset.data_root={root}',
        f'val_dataloader.dataset.data_root={root}',
        f'val_evaluator.ann_file={root}/annotations/val.json',
    ]
    if name == 'ours':
        options.append(f'model.teacher_ckpt={root}/teacher.pth')
    folder = tempfile.mkdtemp(dir=root)
    seconds = measured(
        *(__file__, repr(time.time()), tool, SHAPES / CONFIGS[name]),
        *('--work-dir', folder, '--cfg-options', *options),
    )
    return seconds | {'total': sum(seconds.values())}


def compare(images: int, rounds: int, root: Path) -> list[str]:
    """Lines of the page for one number of images."""
    import mmdet
    import torch
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.registry import MODELS

    from lshfm_mm.datasets import shapes

    register_all_modules()
    shapes.generate(str(root), 16, 16, 128, seed=0)
    config = Config.fromfile(SHAPES / 'faster-rcnn_r34_shapes.py')
    torch.manual_seed(0)
    state = MODELS.build(config.model).state_dict()
    torch.save({'state_dict': state}, root / 'teacher.pth')
    title = write_annotations(root / 'annotations/train.json', images)
    plain = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    tools = {'mmdet': plain, 'ours': REPO / 'tools/train.py'}
    starts = [
        {k: run(k, v, root) for k, v in tools.items()} for _ in range(rounds)
    ]
    ratio = statistics.median(
        x['ours']['total'] / x['mmdet']['total'] for x in starts
    )
    lines = [f'## {title}', '', f'Ours / mmdet: {ratio:.2f}.', '']
    lines += ['| seconds | mmdet | ours |', '|---|---|---|']
    for part in PARTS:
        both = [
            statistics.median(x[k].get(part, 0) for x in starts) for k in tools
        ]
        lines.append(f'| {part} | {both[0]:.1f} | {both[1]:.1f} |')
    return [*lines, '']


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--images', type=int, nargs='+', default=[640, 118_000]
    )
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', help='Markdown page to write')
    options = parser.parse_args()
    lines = ['# Start-up', '']
    lines += [f'    python benchmarks/startup.py {" ".join(sys.argv[1:])}', '']
    lines.append(f'{processor()}; commit {commit(REPO)}.')
    lines.append(f'Medians of {options.rounds} starts.')
    lines += ['', *(__doc__ or '').strip().splitlines()[2:], '']
    with tempfile.TemporaryDirectory() as folder:
        for images in options.images:
            lines += compare(images, options.rounds, Path(folder, str(images)))
    text = '\n'.join(lines)
    print(text)
    if options.out:
        Path(options.out).write_text(text, 'utf-8')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--measure']:
        measure(*sys.argv[2:])
    else:
        main()
