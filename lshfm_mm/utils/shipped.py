"""Where configs and tools are: in the package, or beside it in a clone."""

from pathlib import Path


def shipped(name: str) -> Path:
    """Find a folder that comes with the package, 'configs' or 'tools'."""
    inside = Path(__file__).parents[1] / '.mim' / name
    # A clone links to its own; on Windows git makes a text file of a link.
    return inside if inside.is_dir() else inside.parents[2] / name
