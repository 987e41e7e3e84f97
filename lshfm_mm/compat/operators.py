"""Which operators the installed mmcv has, and who uses them.

Compiled ones know no bfloat16, and take any map for one in plain NCHW format,
without an error. Those of :mod:`lshfm_mm.compat.mmcv_ext` know both.
"""

import sys
from collections.abc import Iterator
from functools import cache

import mmcv._ext
from torch import nn
from torch.autograd import Function

from . import stacks


def are_compiled() -> bool:
    """Whether mmcv's operators are compiled, and not those of torchvision."""
    return not mmcv._ext.__file__.endswith('.py')


def instead_of_compiled() -> str:
    """Return the commands that put torchvision's into a compiled one's place.

    ``install_mmcv`` alone leaves compiled ones that work in place.
    """
    name = stacks.choose().packages['mmcv'][0]
    return f'"pip uninstall -y {name}", then "python -m lshfm_mm install_mmcv"'


def layers_with_compiled_operators(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Module]]:
    """Layers that call operators of a compiled mmcv on maps, with their names.

    There are none where the operators are not compiled.
    """
    if are_compiled():
        for name, module in model.named_modules():
            if any(knows_operators(x.__module__) for x in type(module).mro()):
                yield name, module


@cache
def knows_operators(python_module: str) -> bool:
    """Whether a file has operators of mmcv by name, as mmdet's TOOD does.

    Losses do not count: they read rows of logits, and in float32.
    """
    module = sys.modules.get(python_module)
    if module is None:  # its loader left none, as those of scripts do
        return False
    for value in vars(module).values():
        kind = getattr(value, '__self__', value)  # of KindFunction.apply
        if isinstance(kind, type) and issubclass(kind, Function):
            place = kind.__module__
            if place.startswith('mmcv.ops.') and 'focal_loss' not in place:
                return True
    return False
