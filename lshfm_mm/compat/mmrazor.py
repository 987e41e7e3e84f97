"""Makes MMRazor import on today's torch."""

import importlib
import logging
import sys
from importlib.util import find_spec
from types import ModuleType

import mmcv
import torch
from mmengine.utils import digit_version

from . import stacks

# The newest that MMRazor lets itself be imported with. Of OneDL's mmcv, which
# is newer, all that it uses is there.
NEWEST_MMCV = '2.1.0'
# MMRazor's quantization uses private names that torch 2.0 removed, and
# importing any part of MMRazor's models imports it. Distillation needs none.
QUANTIZATION = (
    'mmrazor.structures.quantization',
    'mmrazor.models.quantizers',
    'mmrazor.models.observers',
    'mmrazor.models.fake_quants',
    'mmrazor.models.algorithms.quantization',
    'mmrazor.engine.runner.quantization_loops',
)
# What MMRazor's distillation imports of mmcls, and mmpretrain's names of it.
MMCLS = {
    'models': {'VisionTransformerClsHead': 'VisionTransformerClsHead'},
    'models.losses.cross_entropy_loss': {
        'soft_cross_entropy': 'soft_cross_entropy'
    },
    'datasets.transforms.formatting': {
        'PackClsInputs': 'PackInputs',
        'to_tensor': 'to_tensor',
    },
    'structures': {'ClsDataSample': 'DataSample'},
}
logger = logging.getLogger(__name__)


class _Absent(ModuleType):
    """Stands for a module of MMRazor's quantization.

    Its names can be imported, as MMRazor's own packages do, but not used.
    """

    __path__: list[str] = []
    __all__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith('__'):
            raise AttributeError(name)
        return type(name, (_Unusable,), {'__module__': self.__name__})


class _Unusable:
    """A class of MMRazor's quantization that cannot be used."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        version = stacks.version('mmrazor')
        raise ImportError(
            f'{type(self).__name__}: MMRazor {version} cannot quantize with '
            f'torch {torch.__version__}; use torch<2.0 for quantization'
        )


def patch_mmrazor() -> bool:
    """Make MMRazor importable, and import what it distils with.

    Returns:
        bool: Whether stubs for quantization were needed.
    """
    _import_mmrazor()
    stubbed = _stub_quantization()
    if find_spec('mmcls') is None and find_spec('mmpretrain') is not None:
        _import_on_mmpretrain()
    return stubbed


def patch_generators() -> None:
    """Let data-free distillation run in one process.

    MMRazor reads ``generator.module``, which is there in a distributed
    training only, where the generator is wrapped.
    """
    from mmrazor.models.architectures.generators.base_generator import (
        BaseGenerator,
    )

    BaseGenerator.module = property(lambda generator: generator)


def _import_on_mmpretrain() -> None:
    """Import MMRazor's classes that build on those of mmcls.

    While they are imported, mmpretrain's modules have mmcls's names; MMRazor
    would put placeholders in the place of what it does not find.
    """
    try:
        _leave_out_multimodal()
        for name, renamed in MMCLS.items():
            module = importlib.import_module(f'mmpretrain.{name}')
            former = ModuleType(f'mmcls.{name}')
            for old, new in renamed.items():
                setattr(former, old, getattr(module, new))
            sys.modules[former.__name__] = former
        for name in ('models', 'datasets', 'engine'):
            importlib.import_module(f'mmrazor.{name}')
    except (ImportError, AssertionError) as error:
        logger.warning(
            'mmpretrain cannot be imported (%s): classes of MMRazor that need '
            'it are not there',
            error,
        )
        return
    finally:
        for name in MMCLS:
            sys.modules.pop(f'mmcls.{name}', None)
    # mmpretrain's networks give two tokens where those of mmcls gave three.
    heads = importlib.import_module('mmrazor.models.architectures.heads')
    theirs = importlib.import_module('mmpretrain.models.heads')
    heads.DeiTClsHead.pre_logits = theirs.DeiTClsHead.pre_logits


def _leave_out_multimodal() -> None:
    """Let mmpretrain be imported beside transformers 5.

    Its multimodal models want transformers 4, and end the import where they
    find a newer one; where they find none, they are left out.
    """
    version = stacks.version('transformers')
    if stacks.numbers(version) >= (5,):
        logger.debug(
            "mmpretrain's multimodal models are left out: they want "
            'transformers 4, and %s is there',
            version,
        )
        dependency = importlib.import_module('mmpretrain.utils.dependency')
        vars(dependency)['WITH_MULTIMODAL'] = False


def _stub_quantization() -> bool:
    """Replace MMRazor's quantization where it cannot be imported."""
    try:
        importlib.import_module(QUANTIZATION[0])
        return False
    except ImportError as error:
        sys.modules.update({name: _Absent(name) for name in QUANTIZATION})
        logger.debug(
            'MMRazor quantization cannot be imported (%s); its modules %s '
            'were replaced by stubs',
            error,
            ', '.join(QUANTIZATION),
        )
        return True


def _import_mmrazor() -> None:
    """Import MMRazor, and let it see no newer mmcv than it knows."""
    version = mmcv.__version__
    if digit_version(version) > digit_version(NEWEST_MMCV):
        mmcv.__version__ = NEWEST_MMCV
        logger.debug('MMRazor was told mmcv %s, not %s', NEWEST_MMCV, version)
    try:
        importlib.import_module('mmrazor')
    finally:
        mmcv.__version__ = version
