"""What a model does for the teacher that is its guest."""

from collections.abc import Callable

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from .frozen import FrozenTeacher


class TeacherHost:
    """Part of a module that moves and casts a guest with itself.

    The guest is no submodule, so that nothing else of it is the host's.
    """

    _guest: FrozenTeacher

    @property
    def teacher(self) -> BaseModel:
        """The teacher: no submodule, always frozen and in eval mode."""
        return self._guest.model

    @property
    def teacher_origin(self) -> str:
        """Where the teacher's weights come from."""
        return self._guest.origin

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> nn.Module:
        """Move and cast the guest with its host.

        Its memory format is its own: that is ``teacher_channels_last``.
        """

        def in_its_format(x: Tensor) -> Tensor:
            new = fn(x)
            if new.stride() == x.stride():
                return new
            kept = torch.empty_like(x, dtype=new.dtype, device=new.device)
            return kept.copy_(new)

        if self._guest.owned:
            for module in (self._guest.model, self._guest.images):
                module._apply(in_its_format, recurse)
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def _set_device(self, device: torch.device) -> None:
        if self._guest.owned:
            self.teacher._set_device(device)
        super()._set_device(device)  # type: ignore[misc]
