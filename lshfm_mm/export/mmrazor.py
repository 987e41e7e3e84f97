"""What MMRazor's own distillations put into a config, taken out again."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmrazor.registry import HOOKS, LOOPS

from ..utils.configs import stem

PLAIN = {'PackCRDClsInputs': 'PackInputs'}


def plain_preprocessor(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a student has for the preprocessor of its algorithm.

    MMRazor's configs of classifiers take MMEngine's, which mmpretrain's
    models do not.

    Args:
        config (dict): Config of the algorithm's.

    Returns:
        dict: Config of one that normalises in the same way.
    """
    config = dict(config)
    kind = str(config.get('type')).removeprefix('mmengine.')
    if kind != 'ImgDataPreprocessor':
        return config
    flips = [config.pop(x, False) for x in ('bgr_to_rgb', 'rgb_to_bgr')]
    config.update(type='mmpretrain.ClsDataPreprocessor', to_rgb=any(flips))
    return config


def without_mmrazor(cfg: Config) -> None:
    """Take out loops, hooks, optimizers and data of distillations.

    Args:
        cfg (Config): With a student as its model; changed in place.
    """
    for key in ('optim_wrapper', 'param_scheduler'):
        value = cfg.get(key)
        if isinstance(value, Mapping) and 'architecture' in value:
            cfg[key] = value['architecture']  # the other is a generator's
    if 'Separate' in str((cfg.get('model_wrapper_cfg') or {}).get('type')):
        cfg.pop('model_wrapper_cfg')
    if _is_mmrazors(cfg.get('val_cfg')):
        cfg.val_cfg.type = 'ValLoop'
    for name, hook in list((cfg.get('default_hooks') or {}).items()):
        if _is_mmrazors(hook):
            cfg.default_hooks.pop(name)
    cfg.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if not _is_mmrazors(hook)
    ]
    for key in list(cfg):
        if key.endswith(('_dataset', '_dataloader', '_pipeline')):
            cfg[key] = _plain_data(cfg[key])


def _is_mmrazors(config: Any) -> bool:
    """Whether a config is of a hook, a loop or data of MMRazor."""
    if not isinstance(config, Mapping):
        return False
    kind = str(config.get('type'))
    scopes = config.get('_scope_'), kind.partition('.')[0]
    return 'mmrazor' in scopes or any(
        kind in registry.module_dict for registry in (HOOKS, LOOPS)
    )


def _plain_data(data: Any) -> Any:
    """Data sets and transforms without what only MMRazor has."""
    if isinstance(data, list | tuple):
        return type(data)(map(_plain_data, data))
    if not isinstance(data, Mapping):
        return data
    if _is_mmrazors(data) and 'dataset' in data:
        return _plain_data(data['dataset'])
    data = {key: _plain_data(value) for key, value in data.items()}
    name = stem(data.get('type'))
    if _is_mmrazors(data) and name in PLAIN:
        data.update(type=PLAIN[name], _scope_='mmpretrain')
    return data
