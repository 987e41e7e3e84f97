"""Compares a model with its data and files, images with annotations."""

from typing import Any

from mmdet.evaluation import CocoMetric
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmrazor.models.algorithms import BaseAlgorithm

from ..algorithms.student_weights import random_and_frozen, weights_from_files
from ..datasets.image_sizes import SizeCheck, add_size_checks
from ..datasets.unused import warn
from ..errors import ConfigError
from ..teachers.settings import split_source
from ..training.num_classes import check_num_classes


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Finds data and pretrained files that do not fit the model.

    Before a training, the number of classes of the head is compared with
    that of the data. In its first epoch, images of another size than their
    annotations say (such as those that EXIF turns) are warned of.

    Of a model that distils nothing it looks whether the files that its
    ``init_cfg`` names gave it weights, too; MMEngine warns where no key fits.
    It warns of a backbone's weights that no file gave and that are frozen.

    Raises:
        ConfigError: If a head has too few classes, or too many for an
            evaluation with COCO's metric; or if a file gave (almost) nothing.
    """

    priority = 'VERY_HIGH'  # before others start workers

    def __init__(self) -> None:
        self.checks: list[SizeCheck] = []

    def before_train(self, runner: Runner) -> None:
        """Compare files and classes; watch what the pipelines load."""
        model: Any = runner.model
        model = model.module if is_model_wrapper(model) else model
        is_new = not getattr(runner, '_has_loaded', True)
        # Of teachers and the like, checkpoints come after what init_cfg says.
        if is_new and not isinstance(model, BaseAlgorithm):
            _, faults, random = weights_from_files(model, 'model.')
            for fault in faults:
                raise ConfigError(fault)
            if frozen := random_and_frozen(model, random, 'model'):
                warn(frozen)
        dataset = runner.train_dataloader.dataset
        student = getattr(model, 'student', model)
        learns = getattr(model, 'calculate_student_loss', True)
        taps = getattr(getattr(model, 'distiller', None), 'taps', {}).values()
        for name in {
            split_source(tap.teacher)[0]
            for tap in taps
            if 'correct' in tap.weights
        }:
            teacher = model.teachers[name]
            field = teacher.settings.field('model')
            check_num_classes(field, teacher.model, dataset)
        check_num_classes('model', student, dataset, learns)
        evaluator = getattr(runner.val_loop, 'evaluator', None)
        for metric in getattr(evaluator, 'metrics', ()):
            kind = type(metric)
            coco = CocoMetric.compute_metrics
            if getattr(kind, 'compute_metrics', None) is coco:
                seen = runner.val_loop.dataloader.dataset
                check_num_classes('model', student, seen, False, True)
        self.checks = add_size_checks(dataset)

    def after_train_iter(self, runner: Runner, *args: Any, **_: Any) -> None:
        """Warn of the first image."""
        for check in self.checks:
            if check.is_new:
                warn(check.tell())

    def after_train_epoch(self, runner: Runner) -> None:
        """Say how many there were in the first epoch."""
        for check in self.checks:
            check.gather()
            if check.is_new or check.count > 1:
                warn(check.tell())
        self.checks = []
