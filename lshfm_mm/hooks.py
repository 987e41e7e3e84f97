"""Hooks: when something is done. What is done lives elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.dataset import InfiniteSampler
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from .algorithms import FeatureMimicDistill
from .averaging import average_checkpoints
from .calibration import calibrate
from .errors import ConfigError
from .files import WholeBackend, remove_partials, written_whole
from .resuming import Progress, evaluation_is_due, obstacles
from .teacher import forked_rng


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
        if type(num_epochs) is not int or num_epochs < 2:
            raise ConfigError(
                f'AverageCheckpointsHook.num_epochs: must be an int >= 2, but '
                f'got {num_epochs!r}'
            )
        self.num_epochs = num_epochs

    def before_run(self, runner: Runner) -> None:
        """Look whether the epochs will be saved and kept.

        Args:
            runner (Runner): With its checkpoint hook.
        """
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
        saving = self._saving(runner)
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
        """Average, and say where it is.

        Args:
            runner (Runner): At the end of its last epoch.
        """
        saving = self._saving(runner)
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

    def _saving(self, runner: Runner) -> Any:
        """The runner's checkpoint hook."""
        found = [x for x in runner.hooks if isinstance(x, CheckpointHook)]
        return found[0] if found else None


@HOOKS.register_module()
class LSHCalibrationHook(Hook):
    """Sets the bias of LSH losses with ``bias='mean'`` or ``'median'``.

    Before training the teacher sees the training images, in a dataloader of
    its own: the random states and the order of the training data are as
    without this hook. A run that is resumed keeps the bias of its
    checkpoint.

    Args:
        num_batches (int, optional): How many batches the teacher sees, all
            ranks together; None for the whole epoch. Defaults to 500.
        num_rois (int): Boxes that are drawn in an image of a two-stage
            detector. Defaults to 256.
        seed (int): Seed of that draw, >= 0. Defaults to 0.

    Raises:
        ConfigError: If an argument is out of its range.
    """

    def __init__(
        self,
        num_batches: int | None = 500,
        num_rois: int = 256,
        seed: int = 0,
    ) -> None:
        for field, value in (
            ('num_batches', 1 if num_batches is None else num_batches),
            ('num_rois', num_rois),
        ):
            if type(value) is not int or value < 1:
                raise ConfigError(
                    f'LSHCalibrationHook.{field}: must be an int >= 1, but '
                    f'got {value!r}'
                )
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ConfigError(
                f'LSHCalibrationHook.seed: must be an int in 0 .. 2**32 - 1, '
                f'but got {seed!r}'
            )
        self.num_batches = num_batches
        self.num_rois = num_rois
        self.seed = seed

    def before_train(self, runner: Runner) -> None:
        """Calibrate what is not calibrated yet.

        Args:
            runner (Runner): Its checkpoint, if any, is loaded.
        """
        model: Any = runner.model
        model = model.module if is_model_wrapper(model) else model
        if not isinstance(model, FeatureMimicDistill):
            raise ConfigError(
                f'LSHCalibrationHook: needs a model of FeatureMimicDistill '
                f'or RoIMimicDistill, but got {type(model).__name__}; remove '
                f'it from custom_hooks'
            )
        if not model.distiller.uncalibrated():
            runner.logger.info(
                'calibration: no loss waits for a bias, it is loaded or zero'
            )
            return
        if not isinstance(runner.cfg.get('train_dataloader'), Mapping):
            raise ConfigError(
                'train_dataloader: LSHCalibrationHook builds one of its own '
                'from the config, and the runner got none; give a dict'
            )
        with forked_rng():
            loader = runner.build_dataloader(
                runner.cfg.train_dataloader,
                seed=runner.seed,
                diff_rank_seed=runner._randomness_cfg.get(
                    'diff_rank_seed', False
                ),
            )
            _, ranks = dist.get_dist_info()
            total = len(loader)
            if isinstance(loader.sampler, InfiniteSampler):
                total = ceil(total / ranks)  # it counts all images
            if self.num_batches is not None:
                total = min(total, ceil(self.num_batches / ranks))
            calibrate(
                model,
                islice(loader, total),
                total,
                self.num_rois,
                self.seed,
            )


# In place of MMEngine's own, for all configs.
@HOOKS.register_module(name='CheckpointHook', force=True)
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, safe against a kill at any moment.

    On local disks a checkpoint is there whole or not at all, then
    ``last_checkpoint`` names it, and only then older ones are removed. What
    a killed run has left half done is removed at the start.

    Args:
        kwargs: Arguments of MMEngine's ``CheckpointHook``.
    """

    backend_args: dict[str, Any] | None

    def before_train(self, runner: Runner) -> None:
        """Choose how to write, and clean up after a killed run.

        Args:
            runner (Runner): Its checkpoint, if any, is loaded.
        """
        if self.file_client_args is None and isinstance(runner, Runner):
            folder = self.out_dir or runner.work_dir
            backend = get_file_backend(folder, backend_args=self.backend_args)
            if type(backend) is LocalBackend:
                self.backend_args = dict(backend='whole')
        super().before_train(runner)
        if isinstance(self.file_backend, WholeBackend) and is_main_process():
            remove_partials(Path(self.out_dir))
            remove_partials(Path(runner.work_dir))
        resumed = runner.message_hub.get_info('last_ckpt')
        if resumed is not None and self._is_mine(resumed):
            self.last_ckpt = resumed  # an evaluation may write to it
            for old in runner.message_hub.get_info('outdated_ckpts', []):
                if is_main_process():
                    Path(self.out_dir, old).unlink(missing_ok=True)

    def _is_mine(self, checkpoint: str) -> bool:
        """Whether a checkpoint is a local one in the folder of this run."""
        folder = Path(self.out_dir).resolve()
        return (
            isinstance(self.file_backend, WholeBackend)
            and Path(checkpoint).parent.resolve() == folder
        )

    def _save_best_checkpoint(
        self, runner: Runner, metrics: Mapping[str, float]
    ) -> None:
        with self._removed_last():
            super()._save_best_checkpoint(runner, metrics)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        if not isinstance(self.file_backend, WholeBackend):
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        path = self.file_backend.join_path
        name = self.filename_tmpl.format(step)
        with self._removed_last() as outdated:
            if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    old = self.filename_tmpl.format(self.keep_ckpt_ids[0])
                    self.file_backend.remove(path(self.out_dir, old))
                self.keep_ckpt_ids.append(step)  # and forget the first
                runner.message_hub.update_info(
                    'keep_ckpt_ids', list(self.keep_ckpt_ids)
                )
            self.last_ckpt = path(self.out_dir, name)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
            runner.message_hub.update_info(
                'outdated_ckpts', [Path(x).name for x in outdated]
            )
            runner.save_checkpoint(
                self.out_dir,
                name,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                record = Path(runner.work_dir) / 'last_checkpoint'
                with written_whole(record) as partial:
                    partial.write_text(self.last_ckpt)

    @contextmanager
    def _removed_last(self) -> Iterator[list[str]]:
        """Yield what is to be removed once all is written."""
        backend = self.file_backend
        if (
            not isinstance(backend, WholeBackend)
            or backend.waiting is not None
        ):
            yield getattr(backend, 'waiting', None) or []
            return
        backend.waiting = []
        try:
            yield backend.waiting
            outdated = backend.waiting
        finally:
            backend.waiting = None
        if is_main_process():
            written = {self.last_ckpt, getattr(self, 'best_ckpt_path', None)}
            written |= {*getattr(self, 'best_ckpt_path_dict', {}).values()}
            for old in {*outdated} - written:
                Path(old).unlink(missing_ok=True)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """A resumed training equals one that was not interrupted.

    All random numbers become a function of the seed, the rank and the
    progress, and an evaluation that the interruption cut off is made up for.
    What stands in the way is warned of before training.
    """

    priority = 'LOWEST'  # others may draw random numbers, too
    progress: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        """Warn, take over the random numbers, and evaluate if that is due.

        Args:
            runner (Runner): Its checkpoint, if any, is loaded.
        """
        for reason in obstacles(runner):
            runner.logger.warning(
                f'a resumed run will not equal an uninterrupted one: {reason}'
            )
        if self.progress is None:
            self.progress = Progress(runner, dist.get_rank())
        if evaluation_is_due(runner):
            runner.logger.info(
                'evaluating the checkpoint to resume: it was saved before '
                'its evaluation'
            )
            runner.val_loop.run()

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the epoch.

        Args:
            runner (Runner): Before it iterates its dataloader.
        """
        assert self.progress is not None
        self.progress.start_epoch(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Seed the step.

        Args:
            runner (Runner): It has its batch.
            batch_idx (int): Not used.
            data_batch (Any): Not used.
        """
        assert self.progress is not None
        self.progress.start_iteration(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Note it in checkpoints that are saved from here on.

        Args:
            runner (Runner): Before an evaluation.
        """
        runner.message_hub.update_info('evaluated_iter', runner.iter)
