"""The mean of the weights of several checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..utils.checkpoints import read_checkpoint, save
from ..utils.files import atomic_write


def average_checkpoints(checkpoints: Sequence[str], out: str) -> None:
    """Write the mean of the weights of several checkpoints.

    Args:
        checkpoints (list[str]): Files of one training.
        out (str): The file to write, whole or not at all. What cannot be
            averaged, such as counters, is of the last one; there is no
            optimizer in it.

    Raises:
        ConfigError: If a file cannot be read, or has other weights.
    """
    sums: dict[str, Tensor] = {}
    for path in checkpoints:
        content = read_checkpoint('checkpoints', path)
        state: Any = content.get('state_dict')
        if not isinstance(state, Mapping):
            raise ConfigError(
                f'checkpoints: {path} has no state_dict; give checkpoints '
                f'that MMEngine saved'
            )
        if sums and state.keys() != sums.keys():
            raise ConfigError(
                f'checkpoints: {path} has other weights than '
                f'{checkpoints[0]}; give those of one training'
            )
        for key, value in state.items():
            if value.is_floating_point():
                value = sums.get(key, 0) + value.double()
            sums[key] = value
    mean = dict(state)
    for key, value in state.items():
        if value.is_floating_point():
            mean[key] = (sums[key] / len(checkpoints)).to(value.dtype)
    with atomic_write(Path(out)) as partial:
        save({'meta': content.get('meta', {}), 'state_dict': mean}, partial)
