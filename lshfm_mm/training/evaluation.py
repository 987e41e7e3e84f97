"""Evaluating a model that is at hand, where it predicts at all."""

import tempfile
from pathlib import Path

from mmdet.models import BaseDetector
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner

from .num_classes import check_num_classes


def predicts(teacher: BaseModel, student: BaseModel) -> bool:
    """Whether a teacher predicts what the student does, boxes or classes.

    None without a head does, nor one of self-supervised training.
    """
    kinds = {isinstance(x, BaseDetector) for x in (teacher, student)}
    has_head = getattr(teacher, 'head', teacher) is not None
    return len(kinds) == 1 and has_head and hasattr(teacher, 'predict')


def validate(
    model: BaseModel, cfg: Config, log_level: str = 'INFO'
) -> dict[str, float]:
    """Metrics of a model on the validation set of a config.

    The config has a ``val_dataloader`` and a ``val_evaluator``. MMEngine
    prints what it does from ``log_level`` on.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Not wrapped, which a frozen model cannot be: launcher='none'. The
        # processes share the images all the same.
        runner = Runner(
            model=model,
            work_dir=folder,
            val_dataloader=cfg.val_dataloader,
            val_evaluator=cfg.val_evaluator,
            val_cfg=cfg.get('val_cfg') or {},
            default_scope=cfg.get('default_scope', 'mmdet'),
            experiment_name=f'validate_{Path(folder).name}',
            log_level=log_level,
        )
        check_num_classes(
            type(model).__name__,
            model,
            runner.val_loop.dataloader.dataset,
            evaluates=True,
        )
        return runner.val()
