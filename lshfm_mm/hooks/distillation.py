"""What hooks need of a distillation."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..errors import ConfigError


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
