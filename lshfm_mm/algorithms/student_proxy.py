"""What others take for the model: the student, inside its algorithm."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import nn

from ..utils.configs import model_config

STUDENT = 'architecture.'


class StudentProxy:
    """Part of an algorithm: others read and set it as if it were the student.

    Hooks, loops and optimizer constructors take the runner's model for the
    detector or classifier. What it has is found here, its parameters under
    their own names. Only in state dicts ``architecture.`` stands before them,
    and in the names of layers, as MMRazor's hooks expect.
    """

    architecture: BaseModel

    def __getattr__(self, name: str) -> Any:
        """Read from the student what the algorithm has not."""
        try:
            return super().__getattr__(name)  # type: ignore[misc]
        except AttributeError:
            # Copies and pickles are asked for: those of the algorithm.
            if name == 'architecture' or name.startswith('__'):
                raise
        return getattr(self.architecture, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set on the student what it has, and the algorithm has not."""
        student = self.__dict__.get('_modules', {}).get('architecture')
        if hasattr(student, name) and name not in dir(self):
            setattr(student, name, value)
        else:
            super().__setattr__(name, value)

    def named_parameters(
        self,
        prefix: str = '',
        recurse: bool = True,
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Name the student's parameters as it does.

        Optimizer constructors look how a name starts. Only a wrapper gives a
        prefix, and it means the names of state dicts.
        """
        named: Iterator[tuple[str, nn.Parameter]] = super().named_parameters(  # type: ignore[misc]
            prefix, recurse, remove_duplicate
        )
        for name, parameter in named:
            yield name if prefix else name.removeprefix(STUDENT), parameter

    @property
    def get_layer_depth(self) -> Callable[[str], tuple[int, int]]:
        """The student's, which mmpretrain's constructor asks.

        It names parameters by the way to them, ``architecture.`` included.
        """
        depth = self.architecture.get_layer_depth
        return lambda name: depth(name.removeprefix(STUDENT))

    def state_dict(
        self, *args: Any, prefix: str = '', **kwargs: Any
    ) -> dict[str, Any]:
        """Keep what the student says of itself, ``architecture.`` before it.

        TimmClassifier and its kin leave out a part of their keys, by a hook
        whose result torch heeds only in the outermost module.
        """
        state: dict[str, Any] = super().state_dict(  # type: ignore[misc]
            *args, prefix=prefix, **kwargs
        )
        if self.architecture._state_dict_hooks:
            start = prefix + STUDENT
            for key in [key for key in state if key.startswith(start)]:
                del state[key]
            kwargs.pop('destination', None)
            for key, value in self.architecture.state_dict(**kwargs).items():
                state[start + key] = value
        return state


def build_student(
    architecture: Mapping[str, Any] | BaseModel, kwargs: dict[str, Any]
) -> BaseModel:
    """Build the student, with the preprocessor in the algorithm's kwargs."""
    if isinstance(architecture, BaseModel):
        return architecture
    cfg = model_config('architecture', architecture)
    # Where mmpretrain keeps it, and without the type that the student knows.
    preprocessor = kwargs.pop('data_preprocessor', None)
    if preprocessor is not None:
        cfg.setdefault('data_preprocessor', preprocessor)
    return MODELS.build(cfg)
