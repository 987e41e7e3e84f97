"""Random numbers that leave the global state as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def forked_rng() -> Iterator[None]:
    """Give back all random states on leaving, as if nothing were drawn."""
    states = random.getstate(), np.random.get_state()
    cuda = torch.cuda.is_available()
    devices = [torch.cuda.current_device()] if cuda else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
