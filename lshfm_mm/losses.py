"""Losses that make one feature mimic another.

Legend: N samples (images, RoIs or locations), D feature width, K hash
functions. A feature is the input of a network's last linear classifier.

L1, L2, KL and many more losses come from MMRazor's registry. LSHL2 of the
paper is :class:`LSHLoss` beside MMRazor's
``L2Loss(normalize=False, div_element=True)``.
"""

import math

import torch
import torch.nn.functional as F
from mmrazor.registry import MODELS
from torch import Tensor, nn

from .errors import ConfigError
from .hashing import hash_codes, project, random_projection

MODES = ('bce', 'l1', 'l2')
BIASES = ('zero',)


def lsh_loss(
    s_feature: Tensor,
    t_feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    mode: str = 'bce',
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Locality-sensitive-hashing loss (paper, section 3.2).

    ``bce`` asks the student's projections for the teacher's hash codes: it
    pulls the direction of the student's feature and leaves its magnitude
    free. ``l1`` and ``l2`` compare the projections themselves.

    Args:
        s_feature (Tensor): The student's features, (N, D).
        t_feature (Tensor): The teacher's features, (N, D). No gradient flows
            into them.
        weight (Tensor): Weights of the hash functions, (K, D).
        bias (Tensor): Biases of the hash functions, (K,).
        mode (str): 'bce', 'l1' or 'l2'. Defaults to 'bce'.
        sample_weight (Tensor, optional): Weights of the samples, >= 0, (N,).
            The mean over samples becomes the mean under these weights.

    Returns:
        Tensor: The mean over samples and hash functions, in nats for 'bce',
        (). Without samples, or with weights that are all 0, it is 0 and has
        a gradient (of zeros).

    Raises:
        ConfigError: If the mode is unknown or shapes do not agree.

    Example:
        >>> import torch
        >>> feature, weight = torch.ones(3, 2), torch.eye(2)
        >>> loss = lsh_loss(0 * feature, feature, weight, torch.zeros(2))
        >>> round(float(loss), 4)  # log(2): no code is known yet
        0.6931
    """
    _check_choice('mode', mode, MODES)
    _check_shapes(s_feature, t_feature, weight, sample_weight)
    s_logits = project(s_feature, weight, bias)
    if mode == 'bce':
        codes = hash_codes(t_feature.detach(), weight, bias).to(s_logits)
        losses = F.binary_cross_entropy_with_logits(
            s_logits, codes, reduction='none'
        )
    else:
        distance = s_logits - project(t_feature.detach(), weight, bias)
        losses = distance.abs() if mode == 'l1' else distance.square()
    return _mean_over_samples(losses.mean(dim=1), sample_weight)


def relative_l2_loss(s_feature: Tensor, t_feature: Tensor) -> Tensor:
    """Mean squared error in units of the teacher's mean squared feature.

    The value is 1 for a student that is 0 everywhere, whatever the scale of
    the features, so that one loss weight serves every teacher.

    Args:
        s_feature (Tensor): The student's features, any shape.
        t_feature (Tensor): The teacher's features, same shape. No gradient
            flows into them.

    Returns:
        Tensor: The loss, (). Empty features give 0 with a gradient. A
        teacher that is 0 everywhere has no scale: then it is the plain mean
        squared error.
    """
    if not s_feature.numel():
        return s_feature.sum() * 0
    scale = t_feature.detach().square().mean()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return F.mse_loss(s_feature, t_feature.detach()) / scale


@MODELS.register_module()
class LSHLoss(nn.Module):
    """:func:`lsh_loss` with its frozen hash functions.

    The hash functions are buffers: saved, restored and moved with the model,
    never trained. What is not given here comes from the teacher when the
    algorithm is built, see :meth:`set_projection`.

    Args:
        feature_dim (int, optional): D. Defaults to the teacher's.
        num_hashes (int, optional): K. Defaults to ``4 * feature_dim``.
        std (float | str): Standard deviation of the hash weights, or
            'teacher' for that of the weights of the teacher's class layer.
            Defaults to 'teacher'.
        bias (str): 'zero': the hyperplanes pass through the origin.
        mode (str): 'bce', 'l1' or 'l2'. Defaults to 'bce'.
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        seed (int): Seed of the hash weights. Defaults to 0.

    Raises:
        ConfigError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> loss = LSHLoss(feature_dim=8, std=0.1)
        >>> tuple(loss.weight.shape)
        (32, 8)
        >>> value = loss(torch.randn(5, 8), torch.randn(5, 8))
        >>> value.shape
        torch.Size([])
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        feature_dim: int | None = None,
        num_hashes: int | None = None,
        std: float | str = 'teacher',
        bias: str = 'zero',
        mode: str = 'bce',
        loss_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_count('feature_dim', feature_dim)
        _check_count('num_hashes', num_hashes)
        if std != 'teacher':
            _check_positive('std', std)
        _check_choice('bias', bias, BIASES)
        _check_choice('mode', mode, MODES)
        check_loss_weight(loss_weight)
        self.feature_dim = feature_dim
        self.num_hashes = num_hashes
        self.std = std
        self.mode = mode
        self.loss_weight = loss_weight
        self.seed = seed
        if feature_dim is not None and isinstance(std, int | float):
            self.set_projection(feature_dim, std)

    @property
    def is_ready(self) -> bool:
        """Whether the hash functions have been drawn."""
        return hasattr(self, 'weight')

    def set_projection(self, feature_dim: int, std: float) -> None:
        """Draw the hash functions; what the user set goes first.

        Args:
            feature_dim (int): D where the user gave none.
            std (float): Standard deviation where the user asked for the
                teacher's.
        """
        dim = self.feature_dim or feature_dim
        std = std if self.std == 'teacher' else float(self.std)
        _check_positive('std', std)
        num_hashes = self.num_hashes or 4 * dim
        weight = random_projection(num_hashes, dim, std, self.seed)
        self.register_buffer('weight', weight)
        self.register_buffer('bias', torch.zeros(num_hashes))

    def forward(
        self,
        s_feature: Tensor,
        t_feature: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted loss in float32 or better.

        Args:
            s_feature (Tensor): The student's features, (N, D) or
                (N, D, H, W): then every location is a sample.
            t_feature (Tensor): The teacher's features, same shape.
            sample_weight (Tensor, optional): Weights of the samples, (N,).

        Returns:
            Tensor: ``loss_weight`` times the loss, ().
        """
        if not self.is_ready:
            raise ConfigError(
                'LSHLoss: has no hash functions yet; give feature_dim and a '
                'float std, or use it through LSHFMDistiller'
            )
        with torch.autocast(s_feature.device.type, enabled=False):
            dtype = torch.promote_types(s_feature.dtype, torch.float32)
            loss = lsh_loss(
                _rows(s_feature).to(dtype),
                _rows(t_feature).to(dtype),
                self.weight.to(dtype),
                self.bias.to(dtype),
                self.mode,
                sample_weight,
            )
        return self.loss_weight * loss

    def extra_repr(self) -> str:
        """State the settings in ``print(model)``."""
        shape = tuple(self.weight.shape) if self.is_ready else None
        return (
            f'weight={shape}, std={self.std}, mode={self.mode!r}, '
            f'loss_weight={self.loss_weight}, seed={self.seed}'
        )


@MODELS.register_module()
class RelativeL2Loss(nn.Module):
    """:func:`relative_l2_loss` with a weight.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_loss_weight(loss_weight)
        self.loss_weight = loss_weight

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Compute the weighted loss of two features of one shape."""
        return self.loss_weight * relative_l2_loss(s_feature, t_feature)


def check_loss_weight(value: object) -> None:
    """Raise ConfigError unless ``value`` can weigh a loss."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (math.isfinite(value) and value >= 0)
    ):
        raise ConfigError(
            f'loss_weight: must be a finite number >= 0, but got {value!r}'
        )


def _rows(feature: Tensor) -> Tensor:
    """Turn (N, D, H, W) into (N * H * W, D); leave (N, D) alone."""
    if feature.dim() == 4:
        return feature.permute(0, 2, 3, 1).flatten(0, 2)
    return feature


def _mean_over_samples(losses: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Mean of (N,), under weights if given; 0 where there is no weight."""
    if sample_weight is None:
        return losses.sum() / max(len(losses), 1)
    total = sample_weight.sum()
    total = torch.where(total > 0, total, torch.ones_like(total))
    return (losses * sample_weight).sum() / total


def _check_shapes(
    s_feature: Tensor,
    t_feature: Tensor,
    weight: Tensor,
    sample_weight: Tensor | None,
) -> None:
    if s_feature.dim() != 2 or s_feature.shape != t_feature.shape:
        raise ConfigError(
            f'features: must both be (N, D), but the student has '
            f'{tuple(s_feature.shape)} and the teacher '
            f'{tuple(t_feature.shape)}; where the widths differ add a '
            f'connector to the tap'
        )
    if s_feature.shape[1] != weight.shape[1]:
        raise ConfigError(
            f'features: are {s_feature.shape[1]} wide, but the hash functions '
            f'were made for {weight.shape[1]}; set feature_dim accordingly'
        )
    if sample_weight is not None and sample_weight.shape != (len(s_feature),):
        raise ConfigError(
            f'sample_weight: must be ({len(s_feature)},), but got '
            f'{tuple(sample_weight.shape)}'
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f'{name}: must be one of {choices}, but got {value!r}'
        )


def _check_count(name: str, value: object) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or value < 1
    ):
        raise ConfigError(f'{name}: must be an int >= 1, but got {value!r}')


def _check_positive(name: str, value: object) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (math.isfinite(value) and value > 0)
    ):
        raise ConfigError(
            f"{name}: must be a finite number > 0 or 'teacher', but got "
            f'{value!r}'
        )
