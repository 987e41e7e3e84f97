"""Files that are there, and files that are there whole or not at all.

Only the standard library is used: the installer of mmcv writes so, too, and
tools tell what is not there before they import more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError, from_here

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


def check_config_file(field: str, path: str, file: str = '') -> None:
    """Raise unless a config is there.

    Args:
        field (str): Which setting names it, for messages.
        path (str): File, or ``'package::path'``.
        file (str): What the latter stands for. Defaults to the path.

    Raises:
        ConfigError: If there is no such file.
    """
    if not Path(file or path).is_file():
        raise ConfigError(
            f'{field}: no such file: {path}{from_here(path)}; give a config '
            f"file or 'mmdet::path/in/its/configs.py'"
        )


def local_file(field: str, checkpoint: str) -> Path:
    """The path of a checkpoint that is here.

    Raises:
        ConfigError: If there is none.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise ConfigError(
            f'{field}: no such file: {checkpoint}{from_here(checkpoint)}; '
            f'train it first, or give the path or http(s) URL of a checkpoint'
        )
    return path


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
