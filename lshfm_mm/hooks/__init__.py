"""Hooks: when something is done. What is done lives in other rooms."""

from .alignment_hook import AlignmentHook
from .average_checkpoints_hook import AverageCheckpointsHook
from .data_check_hook import DataCheckHook
from .exact_resume_hook import ExactResumeHook
from .fade_distill_hook import FadeDistillHook
from .first_batch_audit_hook import FirstBatchAuditHook
from .loss_scale_hook import LossScaleHook
from .lsh_calibration_hook import LSHCalibrationHook
from .non_finite_hook import NonFiniteHook
from .whole_checkpoint_hook import WholeCheckpointHook

__all__ = [
    'AlignmentHook',
    'AverageCheckpointsHook',
    'DataCheckHook',
    'ExactResumeHook',
    'FadeDistillHook',
    'FirstBatchAuditHook',
    'LSHCalibrationHook',
    'LossScaleHook',
    'NonFiniteHook',
    'WholeCheckpointHook',
]
