"""Where the weights come from that a student starts with."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from ..errors import ConfigError, few
from ..teachers.inherit import inherit_weights
from ..utils.checkpoints import find_weights, prefix_of
from ..utils.configs import stem
from .trained_parts import is_under

PRETRAINED = 'Pretrained', 'PretrainedInit'  # as a name, as a class
FEW = 0.1  # of a model's weights; a file that gives fewer is another model's


def count_fitting(
    state: Mapping[str, Any], prefix: str, student: nn.Module
) -> tuple[str, set[str]]:
    """Count, in words, what of a state dict fits a student, and name it.

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
    fits = {key for key in own if key in state} - {*misshapen}
    fitting = len(fits)
    # MMDetection's SyncNormHook loads norms alone, which all fit.
    if fitting < FEW * min(len(own), len(state)):
        raise ConfigError(
            f'load_from: of its {len(state)} keys ({next(iter(state))}, ...) '
            f"{fitting} fit the student's {len(own)} ({next(iter(own))}, "
            f'...), which would start from scratch; give a checkpoint of this '
            f'distillation, or of its student alone'
        )
    line = (
        f'checkpoint: {fitting} of {len(own)} keys of the student'
        + (f', {len(misshapen)} misshapen: ' if misshapen else '')
        + few(misshapen)
    )
    return line, {key.removeprefix(prefix) for key in fits}


def name_student(
    state: dict[str, Any], prefix: str, student: nn.Module
) -> None:
    """Give the keys of a plain model's file the prefix of the student.

    Args:
        state (dict): What is loaded; changed in place.
        prefix (str): That of the student's keys.
        student (nn.Module): The student.
    """
    if any(key.startswith(prefix) for key in state):
        return
    for key in student.state_dict():
        if key in state:
            state[prefix + key] = state.pop(key)


def weights_from_files(
    student: nn.Module, where: str = 'architecture.'
) -> tuple[list[str], list[str], list[str]]:
    """Look which pretrained files gave an initialised model its weights.

    Compared are values, not names: some backbones rename what they load.

    Args:
        student (nn.Module): The model.
        where (str): Where its config stands, for messages.

    Returns:
        tuple[list[str], list[str], list[str]]: A line for each file that gave
        weights, one for each that gave (almost) none, and the names of what
        none gave.
    """
    origins: list[str] = []
    taken: set[str] = set()
    faults: list[str] = []
    done: list[str] = []  # a file of the whole comes after those of parts
    for name, module in student.named_modules():
        cfgs = getattr(module, 'init_cfg', None) or []
        for cfg in [cfgs] if isinstance(cfgs, Mapping) else cfgs:
            if stem(cfg.get('type')) not in PRETRAINED or is_under(name, done):
                continue
            done.append(name)
            path = cfg['checkpoint']
            given = find_weights(CheckpointLoader.load_checkpoint(path, 'cpu'))
            leaves = given.values()
            own = varied_weights(module)
            held = [
                key
                for key, x in own.items()
                if any(_is_same(x.cpu(), y) for y in leaves)
            ]
            field = f'{name}.init_cfg'.lstrip('.')
            if len(held) < FEW * len(own):
                faults.append(
                    f'{where}{field}: {path} gave {len(held)} of its '
                    f'{len(own)} weights, which would start from '
                    f'scratch; {_advice(module, given)}'
                )
            else:
                origins.append(
                    f'{field}: {len(held)} of {len(own)} weights from {path}'
                )
                taken |= {f'{name}.{key}'.lstrip('.') for key in held}
    random = [x for x in varied_weights(student) if x not in taken]
    return origins, faults, random


def start(
    student: nn.Module, teacher: nn.Module | None
) -> tuple[list[str], list[str], list[str]]:
    """Let an initialised student inherit from a teacher, if there is one.

    Returns:
        tuple[list[str], list[str], list[str]]: Those of
        :func:`weights_from_files`, with what was inherited.
    """
    origins, faults, random = weights_from_files(student)
    if teacher is not None:
        taken = inherit_weights(student, teacher)
        weights = varied_weights(student)
        heirs = weights.keys() & taken
        origins.append(f'inherit: {len(heirs)} of {len(weights)} weights')
        random = [x for x in random if x not in heirs]
    return origins, faults, random


def describe_random(student: nn.Module, random: list[str]) -> str:
    """Count, in words, the weights of a student that start at random."""
    weights = varied_weights(student)
    of_part = [Counter(x.split('.')[0] for x in y) for y in (random, weights)]
    parts = [f'{x} {n} of {of_part[1][x]}' for x, n in of_part[0].items()]
    return (
        f'random: {len(random)} of {len(weights)} weights, {", ".join(parts)}'
    )


def random_and_frozen(
    model: nn.Module, random: Collection[str], field: str
) -> str:
    """Warn, in words, of a backbone that is frozen as it was at random.

    Heads are left out: one that mimics the input of its class layer needs
    none. So are position embeddings, which may be fixed sines.

    Args:
        model (nn.Module): The model.
        random (Collection[str]): Names of what no file gave.
        field (str): Where its config stands.

    Returns:
        str: A line; empty if there is no such weight.
    """
    learns = {x for x, y in model.named_parameters() if y.requires_grad}
    frozen = [
        x
        for x in random
        if x.startswith('backbone.')
        and x not in learns
        and 'pos_embed' not in x
    ]
    if not frozen:
        return ''
    return (
        f'{field}.backbone: {len(frozen)} weights start at random and are '
        f'frozen ({few(frozen)}), unless it fetches some itself, as timm '
        f'does; give its init_cfg or load_from, or set frozen_stages=-1'
    )


@contextmanager
def explained(student: nn.Module) -> Iterator[None]:
    """Say in one line where a backbone finds none of its names in a file."""
    try:
        yield
    except (AssertionError, IndexError) as error:
        for fault in weights_from_files(student)[1]:
            raise ConfigError(fault) from error
        raise


def _advice(module: nn.Module, given: Mapping[str, Tensor]) -> str:
    """How a network may get weights whose names are others."""
    own = module.state_dict()
    names = f'its names are {few([*given])}, the network has {few([*own])}'
    if prefix := prefix_of(own, given):
        return f'add prefix={prefix!r} to this init_cfg: {names}'
    if getattr(module, 'convert_weights', None) is False:
        return f'set convert_weights=True beside this init_cfg: {names}'
    return f'give the file of this very network: {names}'


def _is_same(weight: Tensor, given: Tensor) -> bool:
    """Whether a file gave a weight, maybe in another precision."""
    same_shape = given.shape == weight.shape
    return same_shape and torch.equal(weight, given.to(weight.dtype))


def varied_weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters that are no constants at the start, as biases and BN are."""
    return {
        name: x.detach()
        for name, x in module.named_parameters()
        if x.dim() > 1
    }
