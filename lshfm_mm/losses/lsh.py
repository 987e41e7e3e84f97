"""The LSH loss as a module (paper, section 3.2)."""

from typing import Any

import torch
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import (
    ConfigError,
    check_choice,
    check_int,
    check_loss_weight,
    check_positive,
)
from .functional import MODES, lsh_loss
from .hashing import random_projection

BIASES = ('zero', 'mean', 'median')
STDS = ('teacher', 'features')


@MODELS.register_module()
class LSHLoss(nn.Module):
    """:func:`lsh_loss` with its frozen hash functions.

    The hash functions are buffers: saved, restored and moved with the model,
    never trained. What is not given here comes from the teacher when the
    algorithm is built, see :meth:`set_projection`.

    Args:
        feature_dim (int, optional): D. Defaults to the teacher's.
        num_hashes (int, optional): K. Defaults to ``4 * feature_dim``.
        std (float | str): Standard deviation of the hash weights;
            'teacher': that of the weights of the teacher's class layer;
            'features', for teachers without one: that at which the mean
            square of the projections of the teacher's features is 1.
            Defaults to 'teacher'.
        bias (str): 'zero': the hyperplanes pass through the origin; 'mean'
            or 'median': through the middle of the teacher's features, so
            that the codes of each hash function are balanced. For these, as
            for the std of 'features', :class:`LSHCalibrationHook` must be
            among the ``custom_hooks``. Defaults to 'zero'.
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
    std_is: Tensor

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
        dims = dict(feature_dim=feature_dim, num_hashes=num_hashes)
        for field, value in dims.items():
            if value is not None:
                check_int(field, value)
        if std not in STDS:
            check_positive('std', std, f' or one of {STDS}')
        check_choice('bias', bias, BIASES)
        check_choice('mode', mode, MODES)
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
        if feature_dim is not None and std != 'teacher':
            self.set_projection(feature_dim, 1)

    @property
    def is_ready(self) -> bool:
        """Whether the hash functions have been drawn."""
        return hasattr(self, 'weight')

    def set_projection(self, feature_dim: int, std: float) -> None:
        """Draw the hash functions, for D and std that the user left open."""
        dim = self.feature_dim or feature_dim
        std = float(std if self.std in STDS else self.std)
        check_positive('std', std)
        num_hashes = self.num_hashes or 4 * dim
        weight = random_projection(num_hashes, dim, std, self.seed)
        self.register_buffer('weight', weight)
        self.register_buffer('bias', weight.new_zeros(num_hashes))
        # Saved, so that a checkpoint tells what its bias and std are.
        for name, asked in (
            ('bias_is', self.bias_kind != 'zero'),
            ('std_is', self.std == 'features'),
        ):
            if asked:
                kind = weight.new_zeros((), dtype=torch.int64)
                self.register_buffer(name, kind)
                self.needs_calibration = True

    def calibrate(self, middle: Tensor, spread: Tensor | float = 1.0) -> None:
        """Move and scale the hash functions to the teacher's projections.

        Args:
            middle (Tensor): Mean or median of the projections, (K,).
            spread (Tensor): Root of their mean square distance from it, over
                all samples and hash functions, (). For std='features' alone.
        """
        self.bias.copy_(-middle)
        if self.bias_kind != 'zero':
            self.bias_is.fill_(BIASES.index(self.bias_kind))
        if self.std == 'features':
            self.weight /= spread
            self.bias /= spread
            self.std_is.fill_(STDS.index('features'))
        self.needs_calibration = False

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Load; bias and std of another kind than here are not taken."""
        if not self.is_ready:
            super()._load_from_state_dict(state_dict, prefix, *args)
            return
        kind = BIASES[int(state_dict.get(f'{prefix}bias_is', 0))]
        scaled = bool(state_dict.get(f'{prefix}std_is', 0))
        scales = self.std == 'features'
        own = self.weight.clone() if scaled and not scales else None
        super()._load_from_state_dict(state_dict, prefix, *args)
        if own is not None:
            self.weight.copy_(own)
        same = kind == self.bias_kind and scaled == scales
        if not same:
            self.bias.zero_()
        calibrates = scales or self.bias_kind != 'zero'
        self.needs_calibration = calibrates and not same

    def forward(
        self,
        s_feature: Tensor,
        t_feature: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted loss; shapes as in :func:`lsh_loss`."""
        if not self.is_ready:
            raise ConfigError(
                'LSHLoss: has no hash functions yet; give feature_dim and a '
                'float std, or use it through LSHFMDistiller'
            )
        if self.needs_calibration:
            raise ConfigError(
                f'LSHLoss: has bias={self.bias_kind!r} and std={self.std!r}, '
                f"and is not calibrated; add dict(type='LSHCalibrationHook') "
                f"to the custom_hooks of the config, or take bias='zero' and "
                f"a std other than 'features'"
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
            f'mode={self.mode!r}, loss_weight={self.loss_weight}, '
            f'seed={self.seed}'
        )
