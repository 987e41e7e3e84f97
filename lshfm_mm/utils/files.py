"""Files that are there whole or not at all.

Only the standard library is used: the installer of mmcv writes so, too.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = '_partial_'


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write beside a file, and rename once all is on the disk.

    Yields:
        Path: Where to write, with the same suffix; it is gone afterwards.

    Raises:
        PermissionError: On Windows, if another program has the file open; it
            stays as it was.
    """
    partial = path.with_name(f'{PARTIAL}{os.getpid()}_{path.name}')
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)  # the rename itself
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what a killed process was writing; nobody may write there now."""
    for path in folder.glob(f'{PARTIAL}[0-9]*_*'):
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == 'nt':  # Windows opens none as a file
        return
    # It flushes only what is open for writing, too.
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
