"""Audits the first batch of a distillation."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..errors import check_bools
from ..training.audit import Audit
from .distillation import distillation_of


@HOOKS.register_module()
class FirstBatchAuditHook(Hook):
    """Finds what is silently wrong before the first update.

    One table says where all weights come from, what is tapped and how large
    each loss is, see :class:`~lshfm_mm.training.audit.Audit`.

    Args:
        strict (bool): Whether a fault is an error, or a warning. Defaults to
            True.

    Raises:
        ConfigError: If it is no bool; before and in the first batches, at a
            fault.
    """

    def __init__(self, strict: bool = True) -> None:
        check_bools({'FirstBatchAuditHook.strict': strict})
        self.strict = strict
        self.audit: Audit | None = None

    def before_train(self, runner: Runner) -> None:
        """Watch the model until all its losses have been audited."""
        self.audit = Audit(distillation_of(self, runner), self.strict)
