"""What hooks need of a distillation."""

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..errors import ConfigError


class Listener:
    """Calls a method of a hook from inside the model that is trained.

    A copy of the model (a deep one, or a pickle) calls nothing: the hook
    looks at one training, and holds what cannot be copied.

    Args:
        method (Callable, optional): The method; None in a copy.
    """

    def __init__(self, method: Callable[..., None] | None) -> None:
        self.method = method

    def __call__(self, *args: Any) -> None:
        """Call the method."""
        if self.method is not None:
            self.method(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return Listener, (None,)


def distillation_of(hook: Hook, runner: Runner) -> FeatureMimicDistill:
    """The model of a runner, which must be an algorithm of ours."""
    model: Any = runner.model
    model = model.module if is_model_wrapper(model) else model
    if not isinstance(model, FeatureMimicDistill):
        raise ConfigError(
            f'{type(hook).__name__}: needs a model of FeatureMimicDistill or '
            f'RoIMimicDistill, but got {type(model).__name__}; remove it '
            f'from custom_hooks'
        )
    return model
