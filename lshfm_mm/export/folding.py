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

from ..errors import ConfigError
from ..utils.configs import model_config, stem
from ..utils.rng import forked_rng

TOLERANCE = 1e-4  # largest difference of the logits, relative to the largest
SIDE = 64  # of the random images on which it is looked at, pixels
LINEAR_NORM = dict(type='BN1d')  # LinearNeck's default
HEADS = ('LinearClsHead', 'MultiLabelLinearClsHead')


class Folded(NamedTuple):
    """A plain student: its model config and its weights.

    ``difference`` is the largest of its logits to those of the student with
    the embedding, relative to the largest logit.
    """

    model: ConfigDict
    state: dict[str, Tensor]
    difference: float


def has_embedding(model: ConfigDict) -> bool:
    """Whether a model config has a linear embedding before its classifier."""
    neck, head = model.get('neck') or {}, model.get('head') or {}
    if not (isinstance(neck, Mapping) and isinstance(head, Mapping)):
        return False  # several necks, as DyHead behind an FPN
    kinds = [stem(x.get('type')) for x in (neck, head)]
    if kinds[1] not in HEADS or neck.get('out_channels') is None:
        return False
    linear = not (neck.get('norm_cfg', LINEAR_NORM) or neck.get('act_cfg'))
    return kinds[0] == 'GlobalMaxPooling' or (
        kinds[0] == 'LinearNeck' and linear and neck.get('gap_dim', 0) > 0
    )


def fold_embedding(model: ConfigDict, state: Mapping[str, Tensor]) -> Folded:
    """Fold a student's embedding into its classifier, and check it.

    Args:
        model (ConfigDict): Model config of the student, which
            :func:`has_embedding`.
        state (dict[str, Tensor]): Its weights, with ``neck.fc`` (D_t, D_s)
            and ``head.fc`` (classes, D_t).

    Returns:
        Folded: The plain student, with ``head.fc`` (classes, D_s).

    Raises:
        ConfigError: If the logits differ.
    """
    plain = without_embedding(model)
    folded = {k: v for k, v in state.items() if not k.startswith('neck.')}
    (w_cls, b_cls), (w_e, b_e) = (
        [state[f'{part}.fc.{x}'].double() for x in ('weight', 'bias')]
        for part in ('head', 'neck')
    )
    dtype = state['head.fc.weight'].dtype
    folded['head.fc.weight'] = (w_cls @ w_e).to(dtype)
    folded['head.fc.bias'] = (w_cls @ b_e + b_cls).to(dtype)
    difference = _difference((model, state), (plain, folded))
    if not difference <= TOLERANCE:
        raise ConfigError(
            f'checkpoint: the folded student differs by {difference:.1e} of '
            f'its largest logit, more than {TOLERANCE:.0e}; look whether '
            f'its weights are finite and of usual size'
        )
    return Folded(plain, folded, difference)


def without_embedding(model: ConfigDict) -> ConfigDict:
    """The model config without the embedding."""
    plain = ConfigDict(model).copy()
    neck = model.neck
    plain.head = dict(model.head, in_channels=neck.in_channels)
    plain.neck = dict(type=neck.type)
    if stem(neck.type) == 'LinearNeck':
        scope = neck.type.rpartition('.')[0].partition('.')[0]  # or module
        pooling = f'{scope}.GlobalAveragePooling'.lstrip('.')
        plain.neck = dict(type=pooling, dim=neck.gap_dim)
    return plain


@torch.no_grad()
def _difference(*students: tuple[ConfigDict, Mapping[str, Tensor]]) -> float:
    """Largest difference of the logits of two students, relative."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, SIDE, SIDE, generator=generator)
    logits = []
    for cfg, state in students:
        with forked_rng():
            model: BaseModel = MODELS.build(model_config('model', cfg))
        model.load_state_dict(state)
        model.eval()
        logits.append(model(images, mode='tensor'))
    scale = logits[0].abs().max()
    return float((logits[0] - logits[1]).abs().max() / scale)
