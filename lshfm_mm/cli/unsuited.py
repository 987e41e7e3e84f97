"""What is registered elsewhere, and what a distillation cannot be given."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from ..errors import ConfigError
from ..utils.configs import stem

SEARCH = "serves MMRazor's pruning and architecture search alone; remove it"
UNSUITED = {
    'MeanTeacherHook': "would write the student's weights into the teacher; "
    'for an average of the student use EMAHook',
    'PrepareProtoBeforeValLoopHook': 'renews the prototypes of a model that '
    'is a retriever itself, and no distillation is; use a hook of your own '
    'that calls runner.model.prepare_prototype() before the validation',
    'TeacherStudentValLoop': 'evaluates semi-supervised detectors; use '
    'ValLoop, and for the teacher mmrazor.SingleTeacherDistillValLoop',
    'SeparateOptimWrapperConstructor': 'makes several optimizers, and a '
    'training step has one; use DefaultOptimWrapperConstructor with '
    'paramwise_cfg.custom_keys',
    **dict.fromkeys(
        ('ColossalAIStrategy', 'DeepSpeedStrategy', 'FSDPStrategy'),
        'shards the model, which nobody has tried with a teacher beside it; '
        'use DDPStrategy',
    ),
    **dict.fromkeys(
        (
            'DMCPSubnetHook',
            'DumpSubnetHook',
            'PruningStructureHook',
            'ResourceInfoHook',
            'AutoSlimGreedySearchLoop',
            'DartsEpochBasedTrainLoop',
            'DartsIterBasedTrainLoop',
            'EvolutionSearchLoop',
            'GreedySamplerTrainLoop',
            'ItePruneValLoop',
            'SlimmableValLoop',
            'SubnetValLoop',
        ),
        SEARCH,
    ),
}


def check_suited(cfg: Config) -> None:
    """Raise where a config names what would break a distillation, or stop it.

    Args:
        cfg (Config): Of a distillation.

    Raises:
        ConfigError: If there is such a hook, loop, optimizer constructor or
            strategy.
    """
    named = dict(_named(cfg))
    for field, name in named.items():
        if name in UNSUITED:
            raise ConfigError(f'{field}: {name} {UNSUITED[name]}')
    loop = 'SingleTeacherDistillValLoop'
    if named.get('val_cfg.type') == loop and cfg.model.get('teachers'):
        raise ConfigError(
            f'val_cfg.type: {loop} evaluates one teacher, and there are '
            f'{[*cfg.model.teachers]}; use ValLoop, and --check-teacher for '
            f'the teachers'
        )
    if named.get('val_cfg.type') == loop and 'EMAHook' in named.values():
        raise ConfigError(
            f'val_cfg.type: {loop} leaves the weights of EMAHook in the place '
            f'of those that are trained; use ValLoop, and --check-teacher '
            f'for the teacher'
        )


def _named(cfg: Config) -> Iterator[tuple[str, str]]:
    """Types of hooks, loops and the like, by where they stand."""
    for i, hook in enumerate(cfg.get('custom_hooks') or []):
        if isinstance(hook, Mapping):
            yield f'custom_hooks[{i}]', stem(hook.get('type'))
    parts: dict[str, Any] = {
        **{
            f'default_hooks.{k}': v
            for k, v in (cfg.get('default_hooks') or {}).items()
        },
        **{
            k: cfg.get(k)
            for k in ('train_cfg', 'val_cfg', 'test_cfg', 'strategy')
        },
    }
    for field, part in parts.items():
        yield f'{field}.type', stem((part or {}).get('type'))
    constructor = (cfg.get('optim_wrapper') or {}).get('constructor')
    yield 'optim_wrapper.constructor', stem(constructor)
