"""Averages the last epochs after training."""

from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..errors import ConfigError, check_int
from ..training.averaging import average_checkpoints


# In the root registry, where every scope finds them.
@HOOKS.register_module()
class AverageCheckpointsHook(Hook):
    """Averages the weights of the last epochs after training.

    The mean of the files ``epoch_*.pth`` goes to ``average_{n}.pth`` beside
    them. Each epoch counts once, whatever was interrupted and resumed.

    Args:
        num_epochs (int): How many epochs. Defaults to 10, as in the paper's
            recipes.

    Raises:
        ConfigError: If it is out of its range; before training, if the
            checkpoints of these epochs will not be there at its end.
    """

    def __init__(self, num_epochs: int = 10) -> None:
        check_int('AverageCheckpointsHook.num_epochs', num_epochs, 2)
        self.num_epochs = num_epochs

    def before_run(self, runner: Runner) -> None:
        """Look whether the epochs will be saved and kept."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError(
                f'AverageCheckpointsHook: needs a training by epochs, but '
                f'got {type(runner.train_loop).__name__}; remove it'
            )
        if runner.max_epochs < self.num_epochs:
            raise ConfigError(
                f'AverageCheckpointsHook.num_epochs: is {self.num_epochs}, '
                f'but the training has {runner.max_epochs} epochs; lower it'
            )
        hooks = (x for x in runner.hooks if isinstance(x, CheckpointHook))
        saving: Any = next(hooks, None)
        self._saving = saving
        if (
            saving is None
            or not saving.by_epoch
            or saving.interval != 1
            or saving.save_begin > runner.max_epochs - self.num_epochs
            or 0 < saving.max_keep_ckpts < self.num_epochs
        ):
            raise ConfigError(
                f'AverageCheckpointsHook: needs the checkpoints of the last '
                f'{self.num_epochs} epochs; set default_hooks=dict('
                f'checkpoint=dict(interval=1, by_epoch=True, max_keep_ckpts='
                f'{self.num_epochs}))'
            )

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Average, and say where it is."""
        saving = self._saving
        folder = saving.out_dir
        last = runner.epoch  # fewer than planned, if a hook stopped it
        epochs = range(last - self.num_epochs + 1, last + 1)
        if epochs[0] < 1:
            runner.logger.warning(
                f'no average: the training stopped after {last} epochs, and '
                f'{self.num_epochs} are to be averaged'
            )
            return
        out = f'{folder}/average_{self.num_epochs}.pth'
        average_checkpoints(
            [f'{folder}/{saving.filename_tmpl.format(x)}' for x in epochs], out
        )
        runner.logger.info(
            f'average of epochs {epochs[0]} to {last}: {out}; evaluate it '
            f'with tools/test.py, export it with tools/export_student.py'
        )
