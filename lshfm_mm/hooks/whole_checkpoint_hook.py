"""Saves checkpoints that are whole or not there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..training.whole_files import WholeBackend
from ..utils.files import atomic_write, remove_partials


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, safe against a kill at any moment.

    On local disks a checkpoint is there whole or not at all, then
    ``last_checkpoint`` names it, and only then older ones are removed. What
    a killed run has left half done is removed at the start. ``tools/train.py``
    puts it in the place of MMEngine's; with another tool a config does::

        default_hooks = dict(checkpoint=dict(type='WholeCheckpointHook'))

    Args:
        kwargs: Arguments of MMEngine's ``CheckpointHook``.
    """

    backend_args: dict[str, Any] | None

    def before_train(self, runner: Runner) -> None:
        """Choose how to write, and clean up after a killed run."""
        if self.file_client_args is None and isinstance(runner, Runner):
            folder = self.out_dir or runner.work_dir
            backend = get_file_backend(folder, backend_args=self.backend_args)
            if type(backend) is LocalBackend:
                self.backend_args = dict(backend='whole')
                runner.logger.info('lshfm_mm writes checkpoints whole')
        super().before_train(runner)
        if not isinstance(self.file_backend, WholeBackend):
            return
        outdated = []
        folder = Path(self.out_dir)
        resumed = runner.message_hub.get_info('last_ckpt')
        if resumed and Path(resumed).parent.resolve() == folder.resolve():
            self.last_ckpt = resumed  # an evaluation may write to it
            outdated = runner.message_hub.get_info('outdated_ckpts', [])
        if is_main_process():
            remove_partials(folder)
            remove_partials(Path(runner.work_dir))
            for old in outdated:
                (folder / old).unlink(missing_ok=True)

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
        waiting = getattr(backend, 'waiting', None)
        if waiting is not None or not isinstance(backend, WholeBackend):
            yield waiting or []
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
