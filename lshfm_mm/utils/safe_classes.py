"""Classes that a checkpoint may hold, though it runs no code."""

import importlib
import logging
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

logger = logging.getLogger(__name__)


def declare_safe_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read MMEngine's checkpoints.

    Exactly the classes that MMEngine writes are declared safe.
    """
    core = 'numpy._core' if hasattr(np, '_core') else 'numpy.core'
    arrays = importlib.import_module(f'{core}.multiarray')
    safe: list[Any] = [HistoryBuffer, np.ndarray, np.dtype]
    safe += {type(np.dtype(code)) for code in '?bhilqBHILQefd'}
    safe.append((_history_method, 'builtins.getattr'))
    # numpy 1 and 2 write different names for the same function.
    safe += [
        (getattr(arrays, name), f'{package}.multiarray.{name}')
        for name in ('scalar', '_reconstruct')
        for package in ('numpy.core', 'numpy._core')
    ]
    torch.serialization.add_safe_globals(safe)
    logger.debug('declared safe for torch.load: %s', safe)


def _history_method(owner: type, name: str) -> Callable[..., Any]:
    """Stand for ``getattr`` in a checkpoint, with one use left.

    A pickled HistoryBuffer names its statistics as attributes of its class.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(
            f'a checkpoint may not read the attribute {name!r} of {owner!r}'
        )
    return getattr(owner, name)
