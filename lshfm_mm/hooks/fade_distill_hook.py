"""Lets the mimicking fade out."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..errors import ConfigError, check_int
from .distillation import distillation_of


# In the root registry, where every scope finds them.
@HOOKS.register_module()
class FadeDistillHook(Hook):
    """Lowers the weight of all mimicking losses evenly to 0, and stops there.

    From ``end`` on the teacher does not run, and training is plain.

    Args:
        end (int): When the weight is 0.
        begin (int): Until when it is whole. Defaults to 0.
        by_epoch (bool): Whether both count epochs, else iterations. Defaults
            to True.

    Raises:
        ConfigError: If one is out of its range.
    """

    priority = 'LOW'  # that of MMRazor's StopDistillHook

    def __init__(self, end: int, begin: int = 0, by_epoch: bool = True):
        check_int('FadeDistillHook.begin', begin, 0)
        check_int('FadeDistillHook.end', end)
        if end <= begin:
            raise ConfigError(
                f'FadeDistillHook.end: must be later than begin, which is '
                f'{begin}, but got {end}'
            )
        self.begin = begin
        self.end = end
        self.by_epoch = by_epoch

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set the weight of this iteration."""
        model = distillation_of(self, runner)
        if model.distillation_stopped:
            return
        now = float(runner.iter)
        if self.by_epoch:
            now /= len(runner.train_dataloader)
        left = (self.end - now) / (self.end - self.begin)
        model.distiller.strength = min(max(left, 0.0), 1.0)
        if left <= 0:
            model.distillation_stopped = True
            runner.logger.info('the mimicking has faded out: it has stopped')
