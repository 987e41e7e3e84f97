"""Calibrates hash functions before training."""

from collections.abc import Mapping
from itertools import islice
from math import ceil

from mmengine import dist
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..calibration.calibrate import calibrate
from ..errors import ConfigError, check_int
from ..utils.rng import forked_rng
from .distillation import distillation_of


@HOOKS.register_module()
class LSHCalibrationHook(Hook):
    """Sets what LSH losses take from the teacher's features.

    That is the bias with ``bias='mean'`` or ``'median'``, and the std with
    ``std='features'``. Before training the teacher sees the training images,
    in a dataloader of its own: the random states and the order of the
    training data are as without this hook. A run that is resumed keeps what
    its checkpoint has.

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
        self, num_batches: int | None = 500, num_rois: int = 256, seed: int = 0
    ) -> None:
        if num_batches is not None:
            check_int('LSHCalibrationHook.num_batches', num_batches)
        check_int('LSHCalibrationHook.num_rois', num_rois)
        check_int('LSHCalibrationHook.seed', seed, 0, 2**32 - 1)
        self.num_batches = num_batches
        self.num_rois = num_rois
        self.seed = seed

    def before_train(self, runner: Runner) -> None:
        """Calibrate what is not calibrated yet."""
        model = distillation_of(self, runner)
        if not model.distiller.uncalibrated():
            runner.logger.info('calibration: no loss waits for one')
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
            ranks = dist.get_world_size()
            total = len(loader)
            if isinstance(loader.sampler, InfiniteSampler):
                total = ceil(total / ranks)  # it counts all images
            if self.num_batches is not None:
                total = min(total, ceil(self.num_batches / ranks))
            batches = islice(loader, total)
            calibrate(model, batches, total, self.num_rois, self.seed)
