"""Compares the gradients of losses with those of the task."""

from typing import Any

import torch
from mmcv.ops import SyncBatchNorm as MMSyncBN
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils._pytree import tree_leaves

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..errors import check_int
from ..training.gradient_balance import describe_ratio, gradient_ratios
from .distillation import distillation_of, listen_to_losses


@HOOKS.register_module()
class LossScaleHook(Hook):
    """Says how hard each loss pulls against the task.

    In the first batches of a training it compares the norms of gradients on
    the weights of the last layers that a loss and the task share, and logs
    the median ratio of each loss. It proposes no weight: ratios of the first
    batches do not tell good weights from bad ones. It warns where the task's
    gradient is lost in the rounding of the sum, and where a loss pulls less
    than a thousandth of it.

    Args:
        num_batches (int): How many. Each costs a backward pass per loss, from
            the loss to these layers. Defaults to 10.

    Raises:
        ConfigError: If it is out of its range.
    """

    def __init__(self, num_batches: int = 10) -> None:
        check_int('LossScaleHook.num_batches', num_batches)
        self.num_batches = num_batches
        self._ratios: dict[str, list[float]] = {}
        self._handle: Any = None

    def before_train(self, runner: Runner) -> None:
        """Look at the losses of the first batches, if they are to come."""
        model = distillation_of(self, runner)
        reason = ''
        if dist.is_distributed() and has_sync_bn(model):
            reason = 'gradients through SyncBN need all processes each time'
        elif not model.calculate_student_loss:
            reason = 'calculate_student_loss=False leaves no task to compare'
        if reason:
            runner.logger.info(f'LossScaleHook: does nothing, {reason}')
            return
        if runner.iter == 0:
            self._handle = listen_to_losses(
                model, lambda losses: self._note(model, losses)
            )

    def after_train_iter(self, runner: Runner, *args: Any, **kw: Any) -> None:
        """Say what was found after the last of these batches."""
        if self._handle is None or runner.iter + 1 < self.num_batches:
            return
        self._handle.remove()
        self._handle = None
        model = distillation_of(self, runner)
        keys = model.distiller.weight_keys()
        for name, ratios in self._ratios.items():
            key = f'model.distiller.{keys[name.removeprefix("distill.")]}'
            line, *warnings = describe_ratio(name, ratios, key)
            runner.logger.info(line)
            for warning in warnings:
                runner.logger.warning(warning)

    def _note(self, model: FeatureMimicDistill, losses: Any) -> None:
        sums = {
            name: torch.stack([x.mean() for x in tree_leaves(loss)]).sum()
            for name, loss in losses.items()
            if 'loss' in name
        }
        tasks = [v for k, v in sums.items() if k.startswith('student.')]
        try:
            ratios = gradient_ratios(
                torch.stack(tasks).sum(),
                {k: v for k, v in sums.items() if k.startswith('distill.')},
                [x for x in model.student.parameters() if x.requires_grad],
            )
        except RuntimeError as error:
            # Checkpointed activations keep no graph for one loss alone.
            if 'use_reentrant' not in str(error):
                raise
            MMLogger.get_current_instance().warning(
                'LossScaleHook: does nothing, with checkpointed activations '
                'there is no gradient of one loss alone'
            )
            self._handle.remove()
            self._handle = None
            return
        for name, ratio in ratios.items():
            self._ratios.setdefault(name, []).append(ratio)


def has_sync_bn(model: nn.Module) -> bool:
    """Whether a layer waits for other processes: torch's SyncBN or mmcv's."""
    kinds = nn.SyncBatchNorm, MMSyncBN
    return any(isinstance(x, kinds) for x in model.modules())
