"""Images of another size than their annotations say."""

from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile


class SizeCheck:
    """A transform that counts such images, in all workers together.

    Args:
        dataset (BaseDataset): Whose images it sees.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        # Count; index, height and width in the annotation and of the image.
        self.seen = torch.zeros(6, dtype=torch.int64).share_memory_()
        self._told = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a worker gets: not the data set, of which this is a part."""
        return {'seen': self.seen}

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Compare an image that was just loaded."""
        stated = results.get('height'), results.get('width')
        actual = results.get('ori_shape', stated)[:2]
        known = all(isinstance(x, int | float) for x in stated)
        if known and stated != tuple(actual):
            if not self.count:
                facts = [results.get('sample_idx', 0), *stated, *actual]
                self.seen[1:] = torch.tensor(facts)
            self.seen[0] += 1
        return results

    @property
    def count(self) -> int:
        """Images of another size so far."""
        return int(self.seen[0])

    @property
    def is_new(self) -> bool:
        """Whether there is one, and none was told of."""
        return not self._told and self.count > 0

    def tell(self) -> str:
        """A warning; '' if there is nothing new."""
        self._told, index, *sizes = self.seen.tolist()
        height, width, actual_height, actual_width = sizes
        turned = (height, width) == (actual_width, actual_height)
        return (
            f'train_dataloader: so far {self._told:,} images have another '
            f'size than their annotations say, first '
            f'{self.dataset.get_data_info(index)["img_path"]}: {width} x '
            f'{height} there, {actual_width} x {actual_height} in the file'
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
