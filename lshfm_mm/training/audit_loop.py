"""A training loop that audits the first batch and updates nothing."""

import logging
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, ValLoop
from torch import nn
from torch.utils._pytree import tree_leaves

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..errors import ConfigError
from .audit import PATIENCE, Audit


@LOOPS.register_module(name='AuditLoop')
def audit_loop(
    runner: Any, dataloader: Any, loop: Mapping[str, Any]
) -> BaseLoop:
    """Build a training loop that audits the first batch and updates nothing.

    It also evaluates one batch of the validation set, where there is one. Of
    a model that distils nothing it looks whether the losses are finite.

    Args:
        runner (Runner): The runner.
        dataloader (dict | DataLoader): Of the training.
        loop (dict): Config of the loop whose place it takes.
    """
    given = dict(runner=runner, dataloader=dataloader)
    built = LOOPS.build(loop, default_args=given)
    built.run = partial(_run_audit, built)
    return built


def _run_audit(loop: BaseLoop) -> nn.Module:
    loop.runner.call_hook('before_train')
    for handler in loop.runner.logger.handlers:
        if handler.level == logging.WARNING:  # the first process's
            handler.setLevel(logging.INFO)
    wrapped: Any = loop.runner.model
    model = wrapped.module if is_model_wrapper(wrapped) else wrapped
    hooks = (getattr(x, 'audit', None) for x in loop.runner.hooks)
    audit = next((x for x in hooks if isinstance(x, Audit)), None)
    if audit is None and isinstance(model, FeatureMimicDistill):
        audit = Audit(model)
    loop.runner.call_hook('before_train_epoch')
    model.train()
    for index, batch in enumerate(islice(loop.dataloader, PATIENCE)):
        loop.runner.call_hook(
            'before_train_iter', batch_idx=index, data_batch=batch
        )
        with loop.runner.optim_wrapper.optim_context(wrapped):
            losses = model(**model.data_preprocessor(batch, True), mode='loss')
        for name, value in losses.items():
            if not all(x.isfinite().all() for x in tree_leaves(value)):
                raise ConfigError(
                    f'{name}: is not finite in the first batches; look at the '
                    f'weights, those of the teacher too, and at the images'
                )
        if audit is None:
            print_log(
                'train_dataloader: one batch passed the model', 'current'
            )
        if audit is None or not audit.is_open:
            break
    else:
        raise ConfigError(
            f'train_dataloader: in {PATIENCE} batches no sample for '
            f'{sorted(audit and audit.waiting or [])}; look at their taps and '
            f'the annotations'
        )
    if isinstance(loop.runner.val_loop, ValLoop):
        _try_validation(loop.runner.val_loop)
    return wrapped


def _try_validation(loop: ValLoop) -> None:
    """Do what the loop does, with its first batch alone, and save nothing.

    Panoptic quality needs all images, and is not computed.
    """
    hook = loop.runner.call_hook
    kinds = {type(x).__name__ for x in loop.evaluator.metrics}
    evaluates = 'CocoPanopticMetric' not in kinds
    loop.runner.save_checkpoint = lambda *_, **__: None
    try:
        hook('before_val')
        hook('before_val_epoch')
        loop.runner.model.eval()
        loop.run_iter(0, next(iter(loop.dataloader)))
        if evaluates:
            metrics = loop.evaluator.evaluate(len(loop.dataloader.dataset))
            hook('after_val_epoch', metrics=metrics)
        hook('after_val')
    except Exception:
        print_log(
            'val_dataloader: the model cannot be evaluated on its first '
            'batch; the training would end so at its first evaluation',
            'current',
            level=40,
        )
        raise
    print_log(
        'val_dataloader: one batch passed the model'
        + ' and was evaluated (no detection yet is no fault)' * evaluates,
        'current',
    )
