"""Where the weights come from that a student starts with."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import ConfigError, few
from .trained_parts import is_under

FEW = 0.1  # of a model's weights; a file that gives fewer is another model's


def count_fitting(
    state: Mapping[str, Any], prefix: str, student: nn.Module
) -> str:
    """Count, in words, what of a state dict fits a student.

    The student's keys have a prefix there.

    Raises:
        ConfigError: If (almost) nothing fits.
    """
    own = {f'{prefix}{k}': v.shape for k, v in student.state_dict().items()}
    misshapen = [
        key
        for key, shape in own.items()
        if key in state and state[key].shape != shape
    ]
    fitting = sum(key in state for key in own) - len(misshapen)
    # MMDetection's SyncNormHook loads norms alone, which all fit.
    if fitting < FEW * min(len(own), len(state)):
        raise ConfigError(
            f'load_from: of its {len(state)} keys {fitting} fit the '
            f"student's {len(own)} ({next(iter(own))}, ...), which would "
            f"start from scratch; a plain model's file goes into the "
            f'init_cfg of the student: architecture=dict(init_cfg=dict('
            f"type='Pretrained', checkpoint='...'))"
        )
    return (
        f'checkpoint: {fitting} of {len(own)} keys of the student'
        + (f', {len(misshapen)} misshapen: ' if misshapen else '')
        + few(misshapen)
    )


def weights_from_files(student: nn.Module) -> tuple[list[str], list[str]]:
    """Look which pretrained files gave an initialised model its weights.

    Compared are values, not names: some backbones rename what they load.

    Returns:
        tuple[list[str], list[str]]: A line for each file that gave weights,
        and one for each that gave (almost) none.
    """
    origins: list[str] = []
    faults: list[str] = []
    done: list[str] = []  # a file of the whole comes after those of parts
    for name, module in student.named_modules():
        cfgs = getattr(module, 'init_cfg', None) or []
        for cfg in [cfgs] if isinstance(cfgs, Mapping) else cfgs:
            if cfg.get('type') != 'Pretrained' or is_under(name, done):
                continue
            done.append(name)
            path = cfg['checkpoint']
            given = CheckpointLoader.load_checkpoint(path, 'cpu')
            leaves = tree_leaves(given.get('state_dict', given))
            own = [x.cpu() for x in varied_weights(module)]
            held = sum(any(_is_same(x, y) for y in leaves) for x in own)
            field = f'{name}.init_cfg'.lstrip('.')
            if held < FEW * len(own):
                faults.append(
                    f'architecture.{field}: {path} gave {held} of its '
                    f'{len(own)} weights, the student would start from '
                    f'scratch; give the file of this very network'
                )
            else:
                origins.append(
                    f'{field}: {held} of {len(own)} weights from {path}'
                )
    return origins, faults


def _is_same(weight: Tensor, given: Any) -> bool:
    """Whether a file gave a weight, maybe in another precision."""
    same_shape = isinstance(given, Tensor) and given.shape == weight.shape
    return same_shape and torch.equal(weight, given.to(weight.dtype))


def varied_weights(module: nn.Module) -> Iterator[Tensor]:
    """Parameters that are no constants at the start, as biases and BN are."""
    return (x.detach() for x in module.parameters() if x.dim() > 1)
