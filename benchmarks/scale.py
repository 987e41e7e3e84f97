"""How what we add grows: each part at three sizes, and the power it follows.

Timed is the least of three runs. The power is that from the second size to the
third: 1 where ten times the size takes ten times as long, or as much memory.
"""

import argparse
import io
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import commit, processor
from mmdet.datasets import CocoDataset
from tqdm import tqdm

from lshfm_mm import cli
from lshfm_mm.calibration.sketches import MedianSketch
from lshfm_mm.datasets.annotations import check_annotations
from lshfm_mm.losses import LSHLoss

REPO = Path(__file__).resolve().parent.parent
WIDTH = 256
HASHES, SAMPLES = (256, 1024, 4096), (1000, 4000, 16_000)


class Row(NamedTuple):
    """A figure at each of some sizes."""

    what: str
    unit: str
    sizes: Sequence[int]
    figures: list[float]


def seconds(run: Callable[[], Any]) -> float:
    """The least that a call takes."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def loss_of(hashes: int) -> LSHLoss:
    """A loss on features of some width."""
    return LSHLoss(num_hashes=hashes, feature_dim=WIDTH, std=0.1)


def step(hashes: int, samples: int) -> Callable[[], None]:
    """Forward and backward of the loss."""
    loss = loss_of(hashes)
    student, teacher = torch.randn(2, samples, WIDTH)
    student.requires_grad_()
    return lambda: loss(student, teacher).backward()


def saved(hashes: int) -> int:
    """Bytes of the loss in a checkpoint."""
    file = io.BytesIO()
    torch.save(loss_of(hashes).state_dict(), file)
    return file.tell()


def sketch_of(samples: int, streams: int = 64) -> MedianSketch:
    """What a calibration keeps of some samples."""
    sketch = MedianSketch(streams)
    for part in torch.arange(samples).split(10_000):
        sketch.update(torch.randn(streams, len(part)))
    return sketch


def held(sketch: MedianSketch) -> int:
    """Its bytes for a hash function."""
    parts = [part for level in sketch.levels for part in level]
    return sum(part.nbytes for part in parts) // sketch.num_streams


def merged(ranks: int) -> Callable[[], None]:
    """The sketches of some ranks become one."""
    part = sketch_of(1000)

    def merge() -> None:
        whole = MedianSketch(part.num_streams)
        for _ in range(ranks):
            whole.merge(part)

    return merge


def annotations(path: Path, boxes: int) -> Callable[[], Any]:
    """Our look into a file of COCO's format."""
    images = [
        dict(id=x, file_name=f'{x}.jpg', width=640, height=480)
        for x in range(boxes // 7 + 1)
    ]
    listed = [
        dict(
            id=x,
            image_id=x // 7,
            category_id=0,
            bbox=[10, 10, 50, 50],
            area=2500,
            iscrowd=0,
        )
        for x in range(boxes)
    ]
    kinds = [dict(id=0, name='thing')]
    content = dict(images=images, annotations=listed, categories=kinds)
    path.write_text(json.dumps(content), 'utf-8')
    dataset = dict(
        metainfo=dict(classes=('thing',)),
        data_prefix=dict(img='s3://bucket/'),  # whose files are not looked for
    )
    return lambda: check_annotations('ann_file', path, dataset, CocoDataset)


def measured(folder: Path) -> Iterator[Row]:
    """Yield the rows."""
    yield Row(
        'LSH loss, samples (K = 1024)',
        's',
        SAMPLES,
        [seconds(step(1024, x)) for x in SAMPLES],
    )
    yield Row(
        'LSH loss, hash functions (4,000 samples)',
        's',
        HASHES,
        [seconds(step(x, 4000)) for x in HASHES],
    )
    yield Row(
        'LSH loss in a checkpoint, hash functions',
        'KB',
        HASHES,
        [saved(x) / 1e3 for x in HASHES],
    )
    sizes = (10_000, 100_000, 1_000_000)
    sketches = [sketch_of(x) for x in sizes]
    yield Row(
        'median of a hash function, samples',
        'KB',
        sizes,
        [held(x) / 1e3 for x in sketches],
    )
    yield Row(
        'error of its rank, samples',
        '%',
        sizes,
        [100 * x.rank_error() for x in sketches],
    )
    ranks = (10, 100, 1000)
    yield Row(
        'medians of all ranks into one, ranks (64 hash functions)',
        's',
        ranks,
        [seconds(merged(x)) for x in ranks],
    )
    yield Row(
        'our look into annotations, boxes',
        's',
        sizes,
        [seconds(annotations(folder / f'{x}.json', x)) for x in sizes],
    )


def power(row: Row) -> float:
    """Slope of the logarithms, second size to third."""
    grown = row.figures[2] / row.figures[1]
    return math.log(grown) / math.log(row.sizes[2] / row.sizes[1])


def page(rows: Sequence[Row], command: str) -> str:
    """The rows in Markdown."""
    lines = ['# Scale', '', f'    {command}', '']
    lines.append(
        f'{processor()}, {torch.get_num_threads()} threads; commit '
        f'{commit(REPO)}. Features of {WIDTH} channels.'
    )
    lines += ['', *(__doc__ or '').strip().splitlines()[2:], '']
    lines += ['| what, by what | sizes | | power |', '|---|---|---|---|']
    for row in rows:
        sizes = ' / '.join(f'{x:,}' for x in row.sizes)
        figures = ' / '.join(f'{x:.2g}' for x in row.figures)
        lines.append(
            f'| {row.what} | {sizes} | {figures} {row.unit} '
            f'| {power(row):.2f} |'
        )
    return '\n'.join([*lines, ''])


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', help='Markdown page to write')
    options = parser.parse_args()
    cli.load_stack()
    warnings.simplefilter('ignore')
    torch.manual_seed(0)
    command = 'python benchmarks/scale.py'
    if options.out:
        command += f' --out {options.out}'
    with tempfile.TemporaryDirectory() as folder:
        rows = [*tqdm(measured(Path(folder)), 'rows', unit='row')]
    text = page(rows, command)
    print(text)
    if options.out:
        Path(options.out).write_text(text, 'utf-8')


if __name__ == '__main__':
    main()
