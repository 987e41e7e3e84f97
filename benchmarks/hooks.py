"""What our default hooks cost a training: seconds and memory of its steps.

tools/train.py distils Faster R-CNN R101 into R50 on generated images, with all
hooks that it adds and with ``add_hooks=False``. Each run is a new process, and
the two take turns. Given are medians: of ratios within a round, and of
differences of peaks. In the first ten steps the hooks audit the batch and
compare gradients.
"""

import argparse
import json
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import commit, measured, memory, processor

REPO = Path(__file__).resolve().parent.parent
FIRST = 10  # steps in which gradients are compared


def measure(steps: int, tool: str, *arguments: str) -> None:
    """Run a tool for some steps; print seconds and peak of each as JSON."""
    from mmengine.runner import Runner

    found: list[tuple[float, int]] = []
    started = time.perf_counter()
    call_hook = Runner.call_hook

    def noted(self: Runner, name: str, **kwargs: Any) -> None:
        nonlocal started
        if name == 'before_train_iter':
            Path('/proc/self/clear_refs').write_text('5', 'utf-8')
            started = time.perf_counter()
        call_hook(self, name, **kwargs)
        if name == 'after_train_iter':
            found.append((time.perf_counter() - started, memory('VmHWM')))
            if len(found) == steps:
                print(f'\n{json.dumps(found)}', flush=True)
                sys.exit()

    Runner.call_hook = noted
    sys.argv = [tool, *arguments]
    runpy.run_path(tool, run_name='__main__')


def write_pair(root: Path, size: tuple[int, int], images: int) -> Path:
    """Write data, teacher and config of a distillation; give the config."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS

    from lshfm_mm.datasets import shapes
    from lshfm_mm.utils.configs import read_config

    shapes.generate(str(root / 'data'), images, 1, 128, seed=0)
    cfg = read_config('config', 'lshfm_mm::distill/faster_rcnn_lshfm.py')
    data = Config.fromfile(REPO / 'configs/_base_/shapes.py')
    teacher = read_config('teacher', cfg.model.teacher.cfg_path)
    for model in (teacher.model, cfg.model.architecture):
        model.backbone.init_cfg = None
        model.roi_head.bbox_head.num_classes = len(shapes.CLASSES)
    teacher.dump(root / 'teacher.py')
    torch.manual_seed(0)
    state = MODELS.build(teacher.model).state_dict()
    torch.save({'state_dict': state}, root / 'teacher.pth')
    cfg.model.teacher.cfg_path = str(root / 'teacher.py')
    cfg.model.teacher_ckpt = str(root / 'teacher.pth')
    cfg.train_dataloader = data.train_dataloader
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = f'{root}/data/'
    dataset.pipeline[2].update(scale=size[::-1], keep_ratio=False)
    cfg.train_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False
    )
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        cfg[key] = None
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg[key] = None
    cfg.randomness = dict(seed=0)
    cfg.dump(root / 'distil.py')
    return root / 'distil.py'


def run(config: Path, steps: int, hooks: bool) -> list[tuple[float, int]]:
    """Seconds and peak of each step."""
    return measured(
        *(__file__, steps, REPO / 'tools/train.py', config),
        *('--work-dir', tempfile.mkdtemp(dir=config.parent)),
        *('--cfg-options', f'add_hooks={hooks}'),
    )


def main() -> None:
    """Measure, print and write."""
    from mmdet.utils import register_all_modules
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, nargs=2, default=[400, 640])
    parser.add_argument('--steps', type=int, default=20, help='after the 10')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', help='Markdown page to write')
    options = parser.parse_args()
    register_all_modules()
    steps = FIRST + options.steps
    with tempfile.TemporaryDirectory() as folder:
        config = write_pair(Path(folder), tuple(options.size), 2 * steps)
        rounds = [
            {hooks: run(config, steps, hooks) for hooks in (False, True)}
            for _ in tqdm(range(options.rounds), 'rounds')
        ]
    lines = ['# Hooks', '']
    lines += [f'    python benchmarks/hooks.py {" ".join(sys.argv[1:])}', '']
    lines.append(f'{processor()}; commit {commit(REPO)}.')
    lines.append(f'2 images of {options.size[0]} x {options.size[1]}.')
    lines += ['', *(__doc__ or '').strip().splitlines()[2:], '']
    lines += ['| steps | s without | s with | ratio | extra peak, MB |']
    lines += ['|---|---|---|---|---|']
    for title, part in (
        (f'1 to {FIRST}', slice(FIRST)),
        (f'{FIRST + 1} to {steps}', slice(FIRST, None)),
    ):
        times = [
            [statistics.median(s for s, _ in x[k][part]) for k in x]
            for x in rounds
        ]
        peaks = [[max(p for _, p in x[k][part]) for k in x] for x in rounds]
        without, with_ = (
            statistics.median(x[i] for x in times) for i in (0, 1)
        )
        ratio = statistics.median(b / a for a, b in times)
        extra = statistics.median(b - a for a, b in peaks) / 1e6
        cells = f'{without:.2f} | {with_:.2f} | {ratio:.3f} | {extra:.0f}'
        lines.append(f'| {title} | {cells} |')
    text = '\n'.join([*lines, ''])
    print(text)
    if options.out:
        Path(options.out).write_text(text, 'utf-8')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--measure']:
        measure(int(sys.argv[2]), *sys.argv[3:])
    else:
        main()
