"""What a model does for the teachers that are its guests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from .frozen import FrozenTeacher

# Name of a teacher -> its maps to pool RoIs from.
Maps = Mapping[str, Sequence[Tensor]]


class TeacherGroup(BaseModel):
    """Several teachers as one: the layer ``neck`` of ``a`` is ``a:neck``.

    Args:
        models (dict[str, BaseModel]): The teachers, by name.
    """

    def __init__(self, models: Mapping[str, BaseModel]) -> None:
        super().__init__()
        del self.data_preprocessor
        for name, model in models.items():
            self.add_module(name, model)

    def __deepcopy__(self, memo: dict[int, Any]) -> 'TeacherGroup':
        """Share all, as copies of a :class:`FrozenTeacher` do."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: images are preprocessed for one model."""
        raise NotImplementedError('each teacher runs by itself')

    def named_modules(
        self,
        memo: set[nn.Module] | None = None,
        prefix: str = '',
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, nn.Module]]:
        """Name the layers of each teacher, for recorders and messages."""
        memo = set() if memo is None else memo
        for name, model in self.named_children():
            for layer, module in model.named_modules(
                memo, remove_duplicate=remove_duplicate
            ):
                yield f'{prefix}{name}:{layer}', module

    def get_submodule(self, target: str) -> nn.Module:
        """Give a layer by that name."""
        return super().get_submodule(target.replace(':', '.'))


class TeacherHost:
    """Part of a module that moves and casts its guests with itself.

    They are no submodules, so that nothing else of them is the host's.

    Attributes:
        teachers (dict[str, FrozenTeacher]): By name; the only one's is ''.
        teacher (BaseModel): The only teacher, or all of them as one: no
            submodule, always frozen and in eval mode.
    """

    teachers: dict[str, FrozenTeacher]
    _group: TeacherGroup | None

    def _invite(self, teachers: dict[str, FrozenTeacher]) -> None:
        """Take guests in, before anything of the module is there."""
        models = {name: x.model for name, x in teachers.items()}
        group = None if '' in models else TeacherGroup(models)
        vars(self).update(teachers=teachers, _group=group)

    @property
    def teacher(self) -> BaseModel:
        """See the attributes of the class."""
        return self._group or self.teachers[''].model

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> nn.Module:
        """Move and cast guests with their host.

        Their memory format is their own: that is ``teacher_channels_last``.
        """

        def in_its_format(x: Tensor) -> Tensor:
            new = fn(x)
            if new.stride() == x.stride():
                return new
            kept = torch.empty_like(x, dtype=new.dtype, device=new.device)
            return kept.copy_(new)

        for teacher in self._own():
            for module in (teacher.model, teacher.images):
                module._apply(in_its_format, recurse)
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def _set_device(self, device: torch.device) -> None:
        for teacher in self._own():
            teacher.model._set_device(device)
        super()._set_device(device)  # type: ignore[misc]

    def _own(self) -> list[FrozenTeacher]:
        """Those that move with this module."""
        return [x for x in self.teachers.values() if x.owned]
