"""Registers all components on import; the stack must be there."""

from .compat import mmengine, mmrazor
from .utils.safe_classes import declare_safe_classes

mmrazor.patch_mmrazor()
declare_safe_classes()
mmengine.register_config_names()

from . import (  # noqa: E402
    algorithms,
    backbones,
    connectors,
    distillers,
    hooks,
    losses,
)
from .training import amp, audit_loop  # noqa: E402

__all__ = [
    'algorithms',
    'amp',
    'audit_loop',
    'backbones',
    'connectors',
    'distillers',
    'hooks',
    'losses',
]
