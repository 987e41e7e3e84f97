"""Stops before a NaN reaches the weights."""

import json
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..distillers.level_pairs import TapObservation
from ..errors import ConfigError, NonFiniteError, check_choice, check_int
from ..training.non_finite import describe_explosion, describe_nonfinite
from ..utils.files import atomic_write
from ..utils.listener import Listener
from .distillation import distillation_of, listen_to_losses


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Keeps a batch with a NaN or infinite loss from the weights.

    Before the update it looks at the loss, of all ranks. If one is not
    finite, it logs which, with the features at each tap, and writes that and
    the names of the images to ``nonfinite_iter_{i}.json`` in the work
    directory. Gradients that are not finite stop the training before the
    step, and so does a batch that has spoiled the statistics of a BatchNorm.
    A gradient scaler (AMP with float16) leaves such batches out itself: there
    they are counted as skipped.

    Args:
        action (str): 'stop' the training, or 'skip' the batch. Defaults to
            'stop'.
        max_skips (int): How many batches may be skipped in a run, resumed or
            not; the next one stops it. Defaults to 10.

    Raises:
        ConfigError: If an argument is out of its range.
        NonFiniteError: In training, when it stops.
    """

    def __init__(self, action: str = 'stop', max_skips: int = 10) -> None:
        check_choice('NonFiniteHook.action', action, ('stop', 'skip'))
        check_int('NonFiniteHook.max_skips', max_skips)
        self.action = action
        self.max_skips = max_skips
        self._seen: dict[str, TapObservation] = {}
        self._losses: Any = {}
        self._batch: Any = None

    def before_train(self, runner: Runner) -> None:
        """Stand between the loss and the update."""
        model = distillation_of(self, runner)
        model.distiller.observers.append(Listener(self._observe))
        listen_to_losses(model, self._note_losses)
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):
            raise ConfigError(
                f'NonFiniteHook: guards one optimizer, but optim_wrapper is '
                f'{type(wrapper).__name__}; leave it out by add_hooks=False'
            )
        scaler = getattr(wrapper, 'loss_scaler', None)
        scales = scaler is not None and scaler.is_enabled()
        update = wrapper.update_params

        def guarded(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            is_finite = self._is_finite(runner, loss, scales)
            # The backward pass needs the memory.
            self._seen, self._losses = {}, {}
            if is_finite or scales:
                update(loss, *args, **kwargs)
                return
            # The batch counts among those whose gradients are summed up.
            wrapper._inner_count += 1
            if wrapper.should_update() and any(
                x.grad is not None for x in model.parameters()
            ):
                wrapper.step()
                wrapper.zero_grad()

        def look(*_: Any) -> None:
            sums = {
                name: x.grad.sum(dtype=torch.float32)
                for name, x in model.named_parameters()
                if x.grad is not None
            }
            finite = torch.stack([*sums.values()]).isfinite()
            if not finite.all():
                wrong = list(compress(sums, ~finite))
                raise NonFiniteError(
                    f'iteration {runner.iter}: the losses are finite, but not '
                    f'the gradients of {wrong[0]} and {len(wrong) - 1} more; '
                    f'nothing was updated; look for a loss that is far above '
                    f'the others, and lower its weight or the learning rate'
                )

        wrapper.update_params = guarded
        wrapper.optimizer.register_step_pre_hook(look)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Remember which images come."""
        self._batch = data_batch

    def after_train_iter(self, runner: Runner, *args: Any, **kw: Any) -> None:
        """Let go of the batch."""
        self._batch = None

    def _observe(
        self, values: dict[str, Tensor], seen: dict[str, TapObservation]
    ) -> None:
        self._seen = seen

    def _note_losses(self, losses: dict[str, Any]) -> None:
        self._losses = losses

    def _is_finite(self, runner: Runner, loss: Tensor, scales: bool) -> bool:
        is_finite = loss.detach().isfinite().all().to(torch.uint8)
        dist.all_reduce(is_finite, 'min')
        if is_finite:
            return True
        path = Path(runner.work_dir) / f'nonfinite_iter_{runner.iter}.json'
        if dist.get_rank():
            path = path.with_stem(f'{path.stem}_rank{dist.get_rank()}')
        report = describe_nonfinite(self._losses, self._seen, self._batch)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(report, indent=1), 'utf-8')
        wrong = ', '.join(report['not_finite']) or 'that of another rank'
        message = (
            f'iteration {runner.iter}: not finite is {wrong}'
            f'{describe_explosion(report)}; its images, losses and features '
            f'are in {path}'
        )
        spoiled = [
            name
            for name, buffer in distillation_of(self, runner).named_buffers()
            if 'running_' in name and not buffer.isfinite().all()
        ]
        if spoiled:
            raise NonFiniteError(
                f'{message}; it has spoiled {spoiled[0]} and '
                f'{len(spoiled) - 1} more: look at these images, clip '
                f'gradients (optim_wrapper.clip_grad) or lower the learning '
                f'rate, and go on with --resume from the last checkpoint or, '
                f'if losses grew before it, from an earlier one'
            )
        skipped = runner.message_hub.get_info('nonfinite_skipped', 0) + 1
        runner.message_hub.update_info('nonfinite_skipped', skipped)
        limit = self.max_skips if scales or self.action == 'skip' else 0
        if skipped > limit:
            raise NonFiniteError(
                f'{message}; nothing was updated: lower the learning rate or '
                f"the loss's weight, or clip gradients "
                f'(optim_wrapper.clip_grad), and go on from the last '
                f'checkpoint with --resume, or set '
                f"NonFiniteHook's action='skip'"
                + (f', max_skips={limit}' if limit else '')
            )
        runner.logger.warning(
            f'{message}; the batch is skipped, the {skipped}. of at most '
            f'{limit}'
        )
        return False
