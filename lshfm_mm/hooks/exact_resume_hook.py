"""Makes a resumed training equal one without interruption."""

from typing import Any

from mmdet.models import BatchSyncRandomResize
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..training.resuming import evaluation_is_due, obstacles
from ..training.seeding import EPOCHS, STEPS, seed_data, seed_random


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """A resumed training equals one that was not interrupted.

    All random numbers become a function of the seed, the rank and the
    progress, and an evaluation that the interruption cut off is made up for.
    What stands in the way is warned of before training.
    """

    priority = 'LOWEST'  # others may draw random numbers, too

    def __init__(self) -> None:
        self._key: tuple[int, ...]

    def before_train(self, runner: Runner) -> None:
        """Warn, take over the random numbers, and evaluate if that is due."""
        for reason in obstacles(runner):
            runner.logger.warning(
                f'a resumed run will not equal an uninterrupted one: {reason}'
            )
        if not hasattr(self, '_key'):
            self._key = seed_data(runner, dist.get_rank())
        if evaluation_is_due(runner):
            runner.logger.info(
                'evaluating the checkpoint to resume: it was saved before '
                'its evaluation'
            )
            runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what draws between epochs, such as samplers."""
        seed_random(*self._key, EPOCHS, runner.epoch)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Seed the step."""
        seed_random(*self._key, STEPS, runner.iter)

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the sizes that batches have until the next draw."""
        sizes = [x._input_size for x in _resizing(runner)]
        if sizes:
            checkpoint['input_sizes'] = sizes

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Put them back."""
        if runner._resume:
            sizes = checkpoint.get('input_sizes', [])
            for augment, size in zip(_resizing(runner), sizes, strict=False):
                augment._input_size = size and tuple(size)

    def before_val_epoch(self, runner: Runner) -> None:
        """Note it in checkpoints that are saved from here on."""
        runner.message_hub.update_info('evaluated_iter', runner.iter)


def _resizing(runner: Runner) -> list[BatchSyncRandomResize]:
    """What gives batches of several iterations a size, drawn at random."""
    return [
        module
        for module in runner.model.modules()
        if isinstance(module, BatchSyncRandomResize)
    ]
