"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .errors import ConfigError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write beside a file, and rename once all is written.

    Args:
        path (Path): The file.

    Yields:
        Path: Where to write, with the same suffix; it is gone afterwards.
    """
    partial = path.with_name(f'_partial_{os.getpid()}_{path.name}')
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save(content: Any, path: Path) -> None:
    """Save with ``torch.save``.

    Args:
        content (Any): What to save.
        path (Path): Where, see :func:`written_whole`.

    Raises:
        ConfigError: If the disk is full or cannot be written.
    """
    try:
        torch.save(content, path)
    except (OSError, RuntimeError) as error:  # of torch's own writer
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f'out: nothing can be written to {path.parent} ({lines[0][:120]})'
            f'; look for free space, or give another folder'
        ) from error
