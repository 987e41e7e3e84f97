"""Images as the teacher wants them, from those that the student gets."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from ..errors import ConfigError, check_int
from ..utils.patches import patch_layer
from .settings import TeacherSettings

ONE_TEACHER = TeacherSettings()


class ImageConverter(nn.Module):
    """Turn a batch of the student's into one of the teacher's.

    Undoes the student's normalisation and channel order, applies the
    teacher's, and puts its pad value outside the images. Unless a size is
    given, that of the batch stays, so that maps of equal strides have equal
    sizes. Else the batch is resized whole, padding and all: both models see
    the same pixels from edge to edge. Where both preprocessors do the same,
    the batch is given on as it is.

    Args:
        student (nn.Module): The data preprocessor that made the batch.
        teacher (nn.Module): The teacher's.
        settings (TeacherSettings): What the config says of the teacher;
            its ``size`` is height and width of its images, or what both
            shall be a multiple of, the nearest one. Defaults to the
            student's.
        patch (int, optional): What both must be a multiple of.

    Attributes:
        scale (Tensor): Buffer, (3, 1, 1): the teacher's image is the
            student's, its channels in the teacher's order, times this
        shift (Tensor): plus this. In no state dict.

    Raises:
        ConfigError: If a preprocessor does not tell how it normalises, or
            the size is none.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        settings: TeacherSettings = ONE_TEACHER,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        self.field, size = settings.field('size'), settings.size
        self.sides: list[Any] = []
        if size is not None:
            self.sides = [*size] if isinstance(size, Sequence) else [size]
        for side in self.sides:
            check_int(self.field, side)
        if len(self.sides) > 2:
            raise ConfigError(
                f'{self.field}: must be an int, or height and width, but got '
                f'{size!r}'
            )
        self.patch = patch
        student, teacher = _inner(student), _inner(teacher)
        self.flip = _flips(student) != _flips(teacher)
        pads = [getattr(x, 'pad_value', 0) for x in (student, teacher)]
        self.pad_value = pads[1]
        s_mean, s_std = _statistics('architecture', student)
        t_mean, t_std = _statistics(settings.field('model'), teacher)
        self.same = (
            not self.flip
            and pads[0] == pads[1]
            and torch.equal(s_mean, t_mean)
            and torch.equal(s_std, t_std)
        )
        if self.flip:
            s_mean, s_std = s_mean.flip(0), s_std.flip(0)
        shift = (s_mean - t_mean) / t_std
        for name, value in (('scale', s_std / t_std), ('shift', shift)):
            self.register_buffer(name, value.float(), persistent=False)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None
    ) -> Tensor:
        """Convert a batch of images, (N, 3, H, W).

        What lies outside of the ``img_shape`` of their annotations is padding;
        without these nothing is.
        """
        if not self.same:
            if self.flip:
                inputs = inputs.flip(1)
            inputs = inputs * self.scale + self.shift
            for image, sample in zip(inputs, data_samples or (), strict=False):
                shape = sample.metainfo.get('img_shape')
                if shape is not None:
                    image[:, shape[0] :] = self.pad_value
                    image[:, :, shape[1] :] = self.pad_value
        return self._resized(inputs)

    def _resized(self, inputs: Tensor) -> Tensor:
        before = [*inputs.shape[2:]]
        size = self.sides or before
        if len(size) == 1:
            step = size[0]
            size = [max(round(x / step), 1) * step for x in before]
        if self.patch and any(x % self.patch for x in size):
            raise ConfigError(
                f'{self.field}: the teacher cuts images into patches of '
                f'{self.patch} px, and {size[0]} x {size[1]} px are no '
                f'multiple, so that its patches would not lie on the '
                f"student's pixels; set it to {self.patch}"
            )
        if size == before:
            return inputs
        return F.interpolate(inputs, size, mode='bilinear', antialias=True)


def patch_of_teacher(
    student: nn.Module, teacher: nn.Module, resized: bool = False
) -> int | None:
    """What sizes of its images must be a multiple of, in px.

    None where that does not matter: where it cuts none into patches, or both
    models cut the same images alike. ``resized`` says that they are others.
    """
    ours, theirs = (patch_layer(x) for x in (student, teacher))
    if theirs is None:
        return None
    if not resized and ours and ours[1] == theirs[1]:
        return None
    return theirs[1]


def _inner(preprocessor: nn.Module) -> nn.Module:
    """What normalises: mmdet's MultiBranchDataPreprocessor wraps it."""
    return getattr(preprocessor, 'data_preprocessor', preprocessor)


def _flips(preprocessor: nn.Module) -> bool:
    """Whether it turns the channels around: mmengine's and mmpretrain's."""
    return bool(
        getattr(preprocessor, '_channel_conversion', False)
        or getattr(preprocessor, 'to_rgb', False)
    )


def _statistics(field: str, preprocessor: Any) -> tuple[Tensor, Tensor]:
    """Mean and std, (3, 1, 1), float64 on the CPU; 0 and 1 if it has none."""
    if hasattr(preprocessor, 'mean'):
        mean, std = (
            x.detach().to('cpu', torch.float64).expand(3, 1, 1)
            for x in (preprocessor.mean, preprocessor.std)
        )
        return mean, std
    knows_none = type(preprocessor) is BaseDataPreprocessor
    if getattr(preprocessor, '_enable_normalize', not knows_none):
        raise ConfigError(
            f'{field}.data_preprocessor: is a {type(preprocessor).__name__} '
            f'without a mean, so that images cannot be given to the teacher '
            f'in its own normalisation; use a DetDataPreprocessor or a '
            f'ClsDataPreprocessor'
        )
    zeros = torch.zeros(3, 1, 1, dtype=torch.float64, device='cpu')
    return zeros, zeros + 1
