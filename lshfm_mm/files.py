"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
