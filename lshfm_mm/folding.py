"""The embedding of a student, folded into its classifier.

Where student and teacher differ in width, the student gets a linear embedding
before its classifier, in its own path: mmpretrain's ``LinearNeck``. Two linear
maps in a row are one (paper, section 3.2):

    W = W_cls W_e,  b = W_cls b_e + b_cls

so that the student as it is deployed costs nothing more.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import Tensor

from .errors import ConfigError
from .teacher import forked_rng, model_config

TOLERANCE = 1e-4  # largest difference of the logits, relative to the largest
SIDE = 64  # of the random images on which it is looked at, pixels
NECKS = ('LinearNeck', 'GlobalMaxPooling')
HEADS = ('LinearClsHead', 'MultiLabelLinearClsHead')


class Folded(NamedTuple):
    """A plain student.

    Attributes:
        model (ConfigDict): Its model config.
        state (dict[str, Tensor]): Its weights.
        difference (float): Largest difference of its logits to those of the
            student with the embedding, relative to the largest logit.
    """

    model: ConfigDict
    state: dict[str, Tensor]
    difference: float


def has_embedding(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a student hold an embedding to fold."""
    return 'neck.fc.weight' in state and 'head.fc.weight' in state


def fold_embedding(model: ConfigDict, state: Mapping[str, Tensor]) -> Folded:
    """Fold a student's embedding into its classifier, and check it.

    Args:
        model (ConfigDict): Model config of the student.
        state (dict[str, Tensor]): Its weights, with ``neck.fc`` (D_t, D_s)
            and ``head.fc`` (classes, D_t).

    Returns:
        Folded: The plain student, with ``head.fc`` (classes, D_s).

    Raises:
        ConfigError: If the neck is not linear, or the logits differ.
    """
    plain = _plain_model(model)
    folded = {k: v for k, v in state.items() if not k.startswith('neck.')}
    classifier, embedding = (
        [state[f'{part}.fc.{x}'].double() for x in ('weight', 'bias')]
        for part in ('head', 'neck')
    )
    for key, value in (
        ('weight', classifier[0] @ embedding[0]),
        ('bias', classifier[0] @ embedding[1] + classifier[1]),
    ):
        folded[f'head.fc.{key}'] = value.to(state['head.fc.weight'].dtype)
    difference = _difference((model, state), (plain, folded))
    if not difference <= TOLERANCE:
        raise ConfigError(
            f'checkpoint: the folded student differs by {difference:.1e} of '
            f'its largest logit, more than {TOLERANCE:.0e}; export it without '
            f'--config to keep its embedding'
        )
    return Folded(plain, folded, difference)


def _plain_model(model: ConfigDict) -> ConfigDict:
    """The model config without the embedding."""
    plain = ConfigDict(model).copy()
    neck, head = dict(model.neck), ConfigDict(model.head).copy()
    scope, _, kind = neck['type'].rpartition('.')
    head_kind = head.type.rpartition('.')[2]
    if kind not in NECKS or neck.get('act_cfg') or head_kind not in HEADS:
        raise ConfigError(
            f'neck: only a linear one before a linear classifier can be '
            f'folded ({", ".join(NECKS)} before {", ".join(HEADS)}), but got '
            f'{dict(model.neck)} before {head.type}; export it without '
            f'--config'
        )
    if kind == 'LinearNeck' and neck.get('norm_cfg', True):
        raise ConfigError(
            'neck.norm_cfg: an embedding with a norm cannot be folded; set '
            'it to None, or export it without --config'
        )
    head.in_channels = neck['in_channels']
    prefix = f'{scope}.' if scope else ''
    if kind == 'GlobalMaxPooling':
        plain.neck = dict(type=f'{prefix}GlobalMaxPooling')
    elif neck.get('gap_dim', 0):
        plain.neck = dict(
            type=f'{prefix}GlobalAveragePooling', dim=neck['gap_dim']
        )
    else:
        plain.neck = None
    plain.head = head
    return plain


@torch.no_grad()
def _difference(*students: tuple[ConfigDict, Mapping[str, Tensor]]) -> float:
    """Largest difference of the logits of two students, relative."""
    images = torch.randn(
        4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)
    )
    logits = []
    for cfg, state in students:
        with forked_rng():
            model: BaseModel = MODELS.build(model_config('model', cfg))
        model.load_state_dict(state)
        logits.append(model.eval()(images, mode='tensor'))
    scale = logits[0].abs().max()
    return float((logits[0] - logits[1]).abs().max() / scale)
