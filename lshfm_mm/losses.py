"""Losses that make one feature mimic another.

Legend: N samples (images, RoIs or locations), D feature width, K hash
functions. A feature is the input of a network's last linear classifier.

L1, KL and many more losses come from MMRazor's registry. LSHL2 of the paper
is :class:`LSHLoss` beside :class:`FeatureL2Loss`, or on RoIs and pooled
features beside MMRazor's ``L2Loss(normalize=False, div_element=True)``.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmrazor.registry import MODELS
from torch import Tensor, nn
from torch.autograd import Function

from .errors import ConfigError
from .hashing import (
    full_float32,
    hashes_at_a_time,
    project,
    project_back,
    random_projection,
    window_of,
)

MODES = ('bce', 'l1', 'l2')
BIASES = ('zero', 'mean', 'median')
SILENT = 1e-12  # mean square of a feature below which it has no scale


class _LSH(Function):
    """The loss, walking the hash functions in blocks.

    The gradient is taken on the way, so that of all projections only those
    of one block exist at a time, and what is kept has the size of the
    student's features.
    """

    @staticmethod
    def forward(
        ctx: Any,
        s_feature: Tensor,
        t_feature: Tensor,
        weight: Tensor,
        bias: Tensor,
        mode: str,
        share: Tensor,
    ) -> Tensor:
        """Sum over samples and hashes of the losses times ``share``."""
        total = s_feature.new_zeros(())
        wanted = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(s_feature) if wanted else None
        step = hashes_at_a_time(s_feature)
        for w, b in zip(weight.split(step), bias.split(step), strict=True):
            losses, slopes = _compare(
                project(s_feature, w, b),
                project(t_feature, w, b),
                mode,
                wanted,
            )
            total += losses.mul_(share).sum()
            if gradient is not None:
                slopes *= share
                gradient += project_back(slopes, w, s_feature.shape)
            del losses, slopes  # before the next block needs the memory
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient that the forward pass has taken."""
        if torch.is_grad_enabled():
            raise ConfigError(
                'create_graph: is True, but the LSH loss has no second '
                'derivative; take the gradient without it'
            )
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None, None, None, None


def _compare(
    s_side: Tensor, t_side: Tensor, mode: str, wanted: bool
) -> tuple[Tensor, Tensor]:
    """Losses of projections, and if ``wanted`` their slopes."""
    if mode == 'bce':
        codes = (t_side > 0).to(s_side)
        losses = F.binary_cross_entropy_with_logits(
            s_side, codes, reduction='none'
        )
        return losses, s_side.sigmoid().sub_(codes) if wanted else losses
    distance = s_side - t_side
    if mode == 'l1':
        return distance.abs(), distance.sign()
    return distance.square(), 2 * distance


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

    In a map every location is a sample. Its feature is the k x k window
    around it, zero-padded: what a k x k class layer sees of it (paper,
    section 3.5). Memory beside the features stays at a few blocks of
    projections; (N, K) never exists. Computed in float32 or better.

    Args:
        s_feature (Tensor): The student's features, (N, D), or maps,
            (N, C, H, W).
        t_feature (Tensor): The teacher's features, same shape. No gradient
            flows into them.
        weight (Tensor): Weights of the hash functions, (K, D); for maps
            D = C * k * k. Frozen: no gradient flows into them.
        bias (Tensor): Biases of the hash functions, (K,). Frozen.
        mode (str): 'bce', 'l1' or 'l2'. Defaults to 'bce'.
        sample_weight (Tensor, optional): Weights of the samples, >= 0, (N,),
            for maps (N, H, W). The mean over samples becomes the mean under
            these weights.

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
    _check_shapes(s_feature, t_feature, sample_weight)
    window_of(s_feature, weight)
    if bias.shape != weight.shape[:1]:
        raise ConfigError(
            f'bias: must be {tuple(weight.shape[:1])}, one for each hash '
            f'function, but got {tuple(bias.shape)}'
        )
    dtype = torch.promote_types(s_feature.dtype, torch.float32)
    share = _shares(s_feature, sample_weight, dtype) / len(weight)
    with full_float32(s_feature.device):
        return _LSH.apply(
            s_feature.to(dtype),
            t_feature.detach().to(dtype),
            weight.to(dtype),
            bias.to(dtype),
            mode,
            share.unsqueeze(1),
        )


def l2_loss(
    s_feature: Tensor,
    t_feature: Tensor,
    sample_weight: Tensor | None = None,
    window: int = 1,
    relative: bool = False,
) -> Tensor:
    """Mean squared error over samples and channels.

    Computed in float32 or better.

    Args:
        s_feature (Tensor): The student's features, (N, D), or maps,
            (N, C, H, W).
        t_feature (Tensor): The teacher's features, same shape. No gradient
            flows into them.
        sample_weight (Tensor, optional): Weights of the samples, >= 0, (N,),
            for maps (N, H, W).
        window (int): In a map, the feature of a location is the zero-padded
            window of this side around it. Defaults to 1.
        relative (bool): Whether the error is in units of the teacher's mean
            squared feature, so that one loss weight serves every teacher: it
            is 1 for a student that is 0 everywhere. Defaults to False.

    Returns:
        Tensor: The loss, (). Without samples, or with weights that are all
        0, it is 0 with a gradient. A teacher whose mean square is below
        1e-12 has no scale: then the relative loss is the plain one.
    """
    _check_shapes(s_feature, t_feature, sample_weight)
    dtype = torch.promote_types(s_feature.dtype, torch.float32)
    s_feature, t_feature = s_feature.to(dtype), t_feature.detach().to(dtype)
    share = _shares(s_feature, sample_weight, dtype)

    def mean(square: Tensor) -> Tensor:
        per_sample = square.mean(dim=1)
        if window > 1:  # the mean over a window, without unfolding it
            maps = per_sample.unsqueeze(1)
            maps = F.avg_pool2d(maps, window, 1, window // 2)
            per_sample = maps.squeeze(1)
        return (per_sample * share).sum()

    loss = mean((s_feature - t_feature).square())
    if not relative:
        return loss
    return loss / scale_or_one(mean(t_feature.square()))


def scale_or_one(square: Tensor) -> Tensor:
    """Replace what is no scale, so that dividing by it harms no gradient.

    Args:
        square (Tensor): Mean square of a feature, ().

    Returns:
        Tensor: The same; 1 where it is below 1e-12, ().
    """
    return torch.where(square >= SILENT, square, torch.ones_like(square))


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
        bias (str): 'zero': the hyperplanes pass through the origin; 'mean'
            or 'median': through the middle of the teacher's features, so
            that the codes of each hash function are balanced. For these
            :class:`LSHCalibrationHook` must be among the ``custom_hooks``.
            Defaults to 'zero'.
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
    bias_is: Tensor

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
        if bias != 'zero' and mode != 'bce':
            raise ConfigError(
                f'bias: {bias!r} has no effect with mode={mode!r}, which '
                f"compares differences; use 'zero'"
            )
        check_loss_weight(loss_weight)
        if type(seed) is not int:
            raise ConfigError(f'seed: must be an int, but got {seed!r}')
        self.feature_dim = feature_dim
        self.num_hashes = num_hashes
        self.std = std
        self.bias_kind = bias
        self.needs_calibration = False
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
        self.register_buffer('bias', weight.new_zeros(num_hashes))
        if self.bias_kind != 'zero':
            # Saved, so that a checkpoint tells what its bias is.
            kind = weight.new_zeros((), dtype=torch.int64)
            self.register_buffer('bias_is', kind)
            self.needs_calibration = True

    def set_bias(self, middle: Tensor) -> None:
        """Move the hyperplanes to the middle of the teacher's features.

        Args:
            middle (Tensor): Mean or median of the teacher's projections, (K,).
        """
        self.bias.copy_(-middle)
        self.bias_is.fill_(BIASES.index(self.bias_kind))
        self.needs_calibration = False

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Load; a bias of another kind than this loss has is not taken."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.is_ready:
            kind = BIASES[int(state_dict.get(f'{prefix}bias_is', 0))]
            if kind != self.bias_kind:
                self.bias.zero_()
            self.needs_calibration = self.bias_kind not in ('zero', kind)

    def forward(
        self,
        s_feature: Tensor,
        t_feature: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted loss in float32 or better.

        Args:
            s_feature (Tensor): The student's features, (N, D) or
                (N, C, H, W): then every location is a sample.
            t_feature (Tensor): The teacher's features, same shape.
            sample_weight (Tensor, optional): Weights of the samples, (N,) or
                (N, H, W).

        Returns:
            Tensor: ``loss_weight`` times the loss, ().
        """
        if not self.is_ready:
            raise ConfigError(
                'LSHLoss: has no hash functions yet; give feature_dim and a '
                'float std, or use it through LSHFMDistiller'
            )
        if self.needs_calibration:
            raise ConfigError(
                f'LSHLoss.bias: is {self.bias_kind!r} and not calibrated; add '
                f"dict(type='LSHCalibrationHook') to the custom_hooks of the "
                f"config, or take bias='zero'"
            )
        loss = lsh_loss(
            s_feature,
            t_feature,
            self.weight,
            self.bias,
            self.mode,
            sample_weight,
        )
        return self.loss_weight * loss

    def extra_repr(self) -> str:
        """State the settings in ``print(model)``."""
        shape = tuple(self.weight.shape) if self.is_ready else None
        return (
            f'weight={shape}, std={self.std}, bias={self.bias_kind!r}, '
            f'mode={self.mode!r}, '
            f'loss_weight={self.loss_weight}, seed={self.seed}'
        )


@MODELS.register_module()
class FeatureL2Loss(nn.Module):
    """:func:`l2_loss` with a weight: the L2 part of LSHL2.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        window (int, optional): Side of the window that is a location's
            feature. Defaults to that of the tapped class layer, or 1.

    Raises:
        ConfigError: If an argument is out of its range.
    """

    relative = False

    def __init__(
        self, loss_weight: float = 1.0, window: int | None = None
    ) -> None:
        super().__init__()
        _check_count('window', window)
        if window is not None and window % 2 == 0:
            raise ConfigError(f'window: must be odd, but got {window}')
        check_loss_weight(loss_weight)
        self.window = window
        self.loss_weight = loss_weight

    def forward(
        self,
        s_feature: Tensor,
        t_feature: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted loss; shapes as in :func:`l2_loss`."""
        loss = l2_loss(
            s_feature,
            t_feature,
            sample_weight,
            self.window or 1,
            self.relative,
        )
        return self.loss_weight * loss


@MODELS.register_module()
class RelativeL2Loss(FeatureL2Loss):
    """:func:`l2_loss` in units of the teacher's mean squared feature.

    Where that is below 1e-12 the teacher has no scale, and the loss is
    :class:`FeatureL2Loss`.
    """

    relative = True


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


def _shares(
    feature: Tensor, sample_weight: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Weights of the samples that sum to one, or to 0 if all are 0."""
    if sample_weight is None:
        sample_weight = feature.new_ones(feature.shape[:1] + feature.shape[2:])
    total = sample_weight.to(dtype).sum()
    total = torch.where(total > 0, total, torch.ones_like(total))
    return sample_weight.to(dtype) / total


def _check_shapes(
    s_feature: Tensor, t_feature: Tensor, sample_weight: Tensor | None
) -> None:
    if s_feature.dim() not in (2, 4) or s_feature.shape != t_feature.shape:
        raise ConfigError(
            f'features: must both be (N, D) or (N, C, H, W), but the student '
            f'has {tuple(s_feature.shape)} and the teacher '
            f'{tuple(t_feature.shape)}; where the widths differ add a '
            f'connector to the tap'
        )
    for feature in (s_feature, t_feature):
        if not feature.is_floating_point():
            raise ConfigError(
                f'features: must be of floating point, but got '
                f'{feature.dtype}; tap another layer'
            )
    samples = s_feature.shape[:1] + s_feature.shape[2:]
    if sample_weight is not None and sample_weight.shape != samples:
        raise ConfigError(
            f'sample_weight: must be {tuple(samples)}, but got '
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
