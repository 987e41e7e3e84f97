"""What two models have in common to mimic, written as a config."""

from .write import write_config

__all__ = [
    'write_config',
]
