"""Hooks: when something is done. What is done lives elsewhere."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from math import ceil, isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmcv.ops import SyncBatchNorm as MMSyncBN
from mmengine import dist
from mmengine.dataset import InfiniteSampler
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .algorithms import FeatureMimicDistill
from .alignment import alignment_means, alignment_sums
from .averaging import average_checkpoints
from .calibration import calibrate
from .distillers import Seen
from .errors import ConfigError, NonFiniteError
from .files import WholeBackend, atomic_write, remove_partials
from .losses import LSHLoss
from .nonfinite import describe_nonfinite
from .resuming import evaluation_is_due, obstacles
from .scales import advice, gradient_ratios
from .seeding import Progress
from .teacher import forked_rng


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
        model = _distillation(self, runner)
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
                with atomic_write(record) as partial:  # as MMEngine reads it
                    partial.write_text(self.last_ckpt, encoding=None)

    @contextmanager
    def _removed_last(self) -> Iterator[list[str]]:
        """Yield what is to be removed once all is written."""
        backend = getattr(self, 'file_backend', None)  # None: no training
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
        if action not in ('stop', 'skip'):
            raise ConfigError(
                f"NonFiniteHook.action: must be 'stop' or 'skip', but got "
                f'{action!r}'
            )
        if type(max_skips) is not int or max_skips < 1:
            raise ConfigError(
                f'NonFiniteHook.max_skips: must be an int >= 1, but got '
                f'{max_skips!r}'
            )
        self.action = action
        self.max_skips = max_skips
        self._seen: dict[str, Seen] = {}
        self._losses: Any = {}
        self._batch: Any = None

    def before_train(self, runner: Runner) -> None:
        """Stand between the loss and the update.

        Args:
            runner (Runner): Its optimizer wrapper is there.
        """
        model = _distillation(self, runner)
        model.distiller.observers.append(Listener(self._observe))
        model.register_forward_hook(Listener(self._note_losses))
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
            self._forget()  # before the backward pass needs the memory
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

        def look(optimizer: Any, args: Any, kwargs: Any) -> None:
            found = {
                name: x.grad.sum(dtype=torch.float32)
                for name, x in model.named_parameters()
                if x.grad is not None
            }
            finite = torch.stack([*found.values()]).isfinite()
            if not finite.all():
                wrong = [
                    name
                    for name, x in zip(found, finite, strict=True)
                    if not x
                ]
                raise NonFiniteError(
                    f'iteration {runner.iter}: the losses are finite, but not '
                    f'the gradients of {wrong[0]} and {len(wrong) - 1} more; '
                    f'nothing was updated: clip nothing by NaN, lower the '
                    f'learning rate, and go on from the last checkpoint with '
                    f'--resume'
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

    def _forget(self) -> None:
        self._seen, self._losses = {}, {}

    def _observe(
        self, values: dict[str, Tensor], seen: dict[str, Seen]
    ) -> None:
        self._seen = seen

    def _note_losses(self, model: Any, args: Any, losses: Any) -> None:
        if model.training:
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
            f'iteration {runner.iter}: not finite is {wrong}; its images, '
            f'losses and features are in {path}'
        )
        spoiled = [
            name
            for name, buffer in _distillation(self, runner).named_buffers()
            if 'running_' in name and not buffer.isfinite().all()
        ]
        if spoiled:
            raise NonFiniteError(
                f'{message}; it has spoiled {spoiled[0]} and '
                f'{len(spoiled) - 1} more: look at these images, and go on '
                f'from the last checkpoint with --resume'
            )
        skipped = runner.message_hub.get_info('nonfinite_skipped', 0) + 1
        runner.message_hub.update_info('nonfinite_skipped', skipped)
        limit = self.max_skips if scales or self.action == 'skip' else 0
        if skipped > limit:
            raise NonFiniteError(
                f'{message}; nothing was updated: lower the learning rate or '
                f"the loss's weight, go on from the last checkpoint with "
                f"--resume, or set NonFiniteHook's action='skip'"
                + (f', max_skips={limit}' if limit else '')
            )
        runner.logger.warning(
            f'{message}; the batch is skipped, the {skipped}. of at most '
            f'{limit}'
        )
        return False


@HOOKS.register_module()
class AlignmentHook(Hook):
    """Logs how well the student's features agree with the teacher's.

    Of the batch that is trained on, without a second forward pass, over all
    ranks: ``{tap}.angle`` in degrees, ``{tap}.norm_ratio``, the student's
    mean norm over the teacher's, and at taps with an :class:`LSHLoss`
    ``{tap}.equal_codes``, the share of hash codes that agree. They stand in
    the log beside the losses, and in what else the visualizer writes to.

    Args:
        interval (int): Iterations from one to the next. Defaults to 50.

    Raises:
        ConfigError: If it is out of its range.
    """

    def __init__(self, interval: int = 50) -> None:
        if type(interval) is not int or interval < 1:
            raise ConfigError(
                f'AlignmentHook.interval: must be an int >= 1, but got '
                f'{interval!r}'
            )
        self.interval = interval
        self._runner: Runner

    def before_train(self, runner: Runner) -> None:
        """Look at what the losses compare.

        Args:
            runner (Runner): Of a distillation.
        """
        model = _distillation(self, runner)
        for tap in model.distiller.taps:
            if 'loss' in tap:
                raise ConfigError(
                    f'taps.{tap}: is the name of a statistic in the log, and '
                    f"what has 'loss' in its name is taken for one; rename it"
                )
        self._runner = runner
        self._distiller = model.distiller
        model.distiller.observers.append(Listener(self._observe))

    def _observe(
        self, values: dict[str, Tensor], seen: dict[str, Seen]
    ) -> None:
        runner = self._runner
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, tap in seen.items():
            losses = [
                self._distiller.distill_losses[x]
                for x in self._distiller.losses_of(name)
            ]
            lsh = next((x for x in losses if isinstance(x, LSHLoss)), None)
            sums = alignment_sums(
                zip(
                    [x.student for x in tap.levels],
                    [x.teacher for x in tap.levels],
                    tap.counting(),
                    strict=True,
                ),
                getattr(lsh, 'weight', None),
                getattr(lsh, 'bias', None),
            ).to(next(iter(values.values())).device)
            dist.all_reduce(sums)
            for key, value in alignment_means(sums).items():
                runner.message_hub.update_scalar(f'train/{name}.{key}', value)


@HOOKS.register_module()
class LossScaleHook(Hook):
    """Says how hard each loss pulls against the task, and warns of too hard.

    In the first batches of a training it compares the norms of gradients on
    the parameters that a loss and the task share, and logs the median ratio
    of each loss. One above the limit gets a line with the weight that would
    make the two equal; one below 1 is told, and no fault.

    Args:
        num_batches (int): How many. Each costs a backward pass per loss.
            Defaults to 10.
        limit (float): Greatest ratio that needs no advice. Defaults to 50, a
            rule of thumb: good weights on an FPN pull 10 times as hard.

    Raises:
        ConfigError: If an argument is out of its range.
    """

    def __init__(self, num_batches: int = 10, limit: float = 50.0) -> None:
        if type(num_batches) is not int or num_batches < 1:
            raise ConfigError(
                f'LossScaleHook.num_batches: must be an int >= 1, but got '
                f'{num_batches!r}'
            )
        if type(limit) not in (int, float) or not limit > 0:
            raise ConfigError(
                f'LossScaleHook.limit: must be a ratio > 0, but got {limit!r}'
            )
        self.num_batches = num_batches
        self.limit = limit
        self._ratios: dict[str, list[float]] = {}
        self._handle: Any = None

    def before_train(self, runner: Runner) -> None:
        """Look at the losses of the first batches, if they are to come.

        Args:
            runner (Runner): Of a distillation.
        """
        model = _distillation(self, runner)
        reason = ''
        if dist.is_distributed() and has_sync_bn(model):
            reason = 'gradients through SyncBN need all processes each time'
        elif not model.calculate_student_loss:
            reason = 'calculate_student_loss=False leaves no task to compare'
        if reason:
            runner.logger.warning(f'LossScaleHook: does nothing, {reason}')
            return
        if runner.iter == 0:
            self._handle = model.register_forward_hook(Listener(self._note))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Say what was found after the last of these batches."""
        if self._handle is None or runner.iter + 1 < self.num_batches:
            return
        self._handle.remove()
        self._handle = None
        model = _distillation(self, runner)
        keys = model.distiller.weight_keys()
        for name, ratios in self._ratios.items():
            ratio = median([x for x in ratios if isfinite(x)] or [0.0])
            loss = model.distiller.distill_losses[name.partition('.')[2]]
            weight = getattr(loss, 'loss_weight', 1.0)
            runner.logger.info(
                f'{name}: {ratio:.3g} of the gradient of the task'
            )
            key = f'model.distiller.{keys[name.partition(".")[2]]}'
            line = advice(name, ratio, weight, key, self.limit)
            if line is not None and hasattr(loss, 'loss_weight'):
                runner.logger.warning(line)

    def _note(self, model: Any, args: Any, losses: Any) -> None:
        if not model.training:
            return
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


def _distillation(hook: Hook, runner: Runner) -> FeatureMimicDistill:
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
