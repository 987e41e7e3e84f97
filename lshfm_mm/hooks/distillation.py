"""What hooks need of a distillation."""

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..errors import ConfigError
from ..utils.listener import Listener


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


def listen_to_losses(
    model: FeatureMimicDistill, function: Callable[[dict[str, Any]], None]
) -> Any:
    """Call a function with the losses of each training step.

    Other passes in training mode give none, as those of mmpretrain's
    PreciseBNHook.

    Returns:
        RemovableHandle: What ends it.
    """

    def listen(_: Any, args: Any, losses: Any) -> None:
        if model.training and isinstance(losses, dict):
            function(losses)

    return model.register_forward_hook(Listener(listen))
