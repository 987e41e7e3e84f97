"""Images as the teacher wants them, from those that the student gets."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


class ImageConverter:
    """Turn a batch of the student's into one of the teacher's.

    Undoes the student's normalisation and channel order, applies the
    teacher's, and puts its pad value outside the images. The size of the
    batch stays, so that maps of equal strides have equal sizes. Where both
    preprocessors do the same, the batch is given on as it is.

    Args:
        student (nn.Module): The data preprocessor that made the batch.
        teacher (nn.Module): The teacher's.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student = student
        self.teacher = teacher
        self.flip = _flips(student) != _flips(teacher)
        pads = [getattr(x, 'pad_value', 0) for x in (student, teacher)]
        self.pad_value = pads[1]
        self.same = not self.flip and pads[0] == pads[1]
        for ours, theirs in zip(
            _statistics(student), _statistics(teacher), strict=True
        ):
            self.same = self.same and torch.equal(
                ours.expand(3, 1, 1), theirs.expand(3, 1, 1)
            )

    def __call__(
        self, inputs: Tensor, data_samples: Sequence[Any] | None
    ) -> Tensor:
        """Convert a batch.

        Args:
            inputs (Tensor): The student's batch, (N, 3, H, W).
            data_samples (list): Its annotations, with ``img_shape``: what
                lies outside is padding. Without, nothing is.

        Returns:
            Tensor: The teacher's batch, (N, 3, H, W).
        """
        if not self.same:
            s_mean, s_std, t_mean, t_std = (
                x.to(inputs.device)
                for side in (self.student, self.teacher)
                for x in _statistics(side)
            )
            inputs = inputs * s_std + s_mean
            if self.flip:
                inputs = inputs.flip(1)
            inputs = (inputs - t_mean) / t_std
            for image, sample in zip(inputs, data_samples or (), strict=False):
                self._pad(image, sample)
        return inputs

    def _pad(self, image: Tensor, sample: BaseDataElement) -> None:
        shape = sample.metainfo.get('img_shape')
        if shape is not None:
            image[:, shape[0] :] = self.pad_value
            image[:, :, shape[1] :] = self.pad_value


def _flips(preprocessor: nn.Module) -> bool:
    """Whether it turns the channels around: mmengine's and mmpretrain's."""
    return bool(
        getattr(preprocessor, '_channel_conversion', False)
        or getattr(preprocessor, 'to_rgb', False)
    )


def _statistics(preprocessor: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and std, (3, 1, 1); those of no normalisation if it has none."""
    mean = getattr(preprocessor, 'mean', torch.zeros(3, 1, 1))
    return mean, getattr(preprocessor, 'std', torch.ones(3, 1, 1))
