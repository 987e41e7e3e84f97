"""Images of another size than their annotations say."""

from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dist import all_reduce


class SizeCheck:
    """A transform that finds such images, in all workers together.

    Args:
        dataset (BaseDataset): Whose images it sees.

    Attributes:
        sizes (Tensor): Shape (images, 2): height and width in the file of
            each image that differs from its annotation, and 0 of the others.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        size = len(dataset), 2
        self.sizes = torch.zeros(size, dtype=torch.int32).share_memory_()
        # Asked for in each iteration, when all sizes would take too long.
        self._found = torch.zeros((), dtype=torch.bool).share_memory_()
        self._told = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a worker gets: not the data set, of which this is a part."""
        return {'sizes': self.sizes, '_found': self._found}

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Compare an image that was just loaded."""
        stated = results.get('height'), results.get('width')
        actual = results.get('ori_shape', stated)[:2]
        known = all(isinstance(x, int | float) for x in stated)
        if known and stated != tuple(actual) and 'sample_idx' in results:
            self.sizes[results['sample_idx']] = torch.tensor(actual).int()
            self._found.fill_(True)
        return results

    @property
    def count(self) -> int:
        """Images of another size so far."""
        return int(self.sizes.any(1).sum())

    @property
    def is_new(self) -> bool:
        """Whether there is one, and none was told of."""
        return not self._told and bool(self._found)

    def gather(self) -> None:
        """Take what all processes of a training found."""
        all_reduce(self.sizes, 'max')
        self._found.fill_(self.count > 0)

    def tell(self) -> str:
        """A warning of what was found so far."""
        self._told = self.count
        index = int(self.sizes.any(1).int().argmax())
        info = self.dataset.get_data_info(index)
        height, width = info['height'], info['width']
        actual_height, actual_width = self.sizes[index].tolist()
        turned = (height, width) == (actual_width, actual_height)
        return (
            f'train_dataloader: so far {self._told:,} '
            f'{"image has" if self._told == 1 else "images have"} another '
            f'size than their annotations say, first '
            f'{info["img_path"]}: {width} x {height} there, {actual_width} x '
            f'{actual_height} in the file'
            + (', turned by EXIF?' if turned else '')
            + '; boxes are of one of them'
        )


def add_size_checks(dataset: Any) -> list[SizeCheck]:
    """Let the pipelines of a data set, and of those in it, compare sizes."""
    parts = [*getattr(dataset, 'datasets', ())]
    parts += [x for x in [getattr(dataset, 'dataset', None)] if x]
    checks = [check for part in parts for check in add_size_checks(part)]
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    for index, transform in enumerate(transforms):
        if isinstance(transform, LoadImageFromFile):
            checks.append(SizeCheck(dataset))
            transforms.insert(index + 1, checks[-1])
            break
    return checks
