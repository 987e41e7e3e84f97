"""The LSH loss as a module (paper, section 3.2)."""

from collections.abc import Iterator
from contextlib import contextmanager
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
from .functional import MODES, PRECISIONS, lsh_loss
from .hashing import random_projection, some_of

BIASES = ('zero', 'mean', 'median')
STDS = ('teacher', 'features')
# How far the sums of hash weights may be off, in their standard deviations:
# another kind of CPU rounds another way.
ROUNDING = 1e-3


@MODELS.register_module()
class LSHLoss(nn.Module):
    """:func:`lsh_loss` with its frozen hash functions.

    The hash functions are buffers: moved with the model, never trained. A
    seed determines them, so that a checkpoint holds no weights of them but
    their sums, by which another draw is refused. What is not given here comes
    from the teacher when the algorithm is built, see :meth:`set_projection`.

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
        hashes_per_step (int, optional): How many of the hash functions count
            in a step of training, at most K. They are drawn afresh each
            time, so that their mean is the loss of all. A step is one of
            LSHFMDistiller, elsewhere a call. Defaults to all.
        precision (str): Of the projections: 'float32', 'tf32' or 'bfloat16',
            see :func:`lsh_loss`. Defaults to 'float32'.

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
    sums: Tensor
    bias_is: Tensor
    spread: Tensor
    step: Tensor

    def __init__(
        self,
        feature_dim: int | None = None,
        num_hashes: int | None = None,
        std: float | str = 'teacher',
        bias: str = 'zero',
        mode: str = 'bce',
        loss_weight: float = 1.0,
        seed: int = 0,
        hashes_per_step: int | None = None,
        precision: str = 'float32',
    ) -> None:
        super().__init__()
        for field, value in dict(
            feature_dim=feature_dim,
            num_hashes=num_hashes,
            hashes_per_step=hashes_per_step,
        ).items():
            if value is not None:
                check_int(field, value)
        if std not in STDS:
            check_positive('std', std, f' or one of {STDS}')
        check_choice('bias', bias, BIASES)
        check_choice('mode', mode, MODES)
        check_choice('precision', precision, PRECISIONS)
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
        self.precision = precision
        self.loss_weight = loss_weight
        self.seed = seed
        self.hashes_per_step = hashes_per_step
        self._rows: Tensor | None = None  # that count in this step
        if hashes_per_step is not None:
            self._steps = 0  # of which the buffer is what is saved
            step = torch.zeros((), dtype=torch.int64)
            self.register_buffer('step', step)
        if feature_dim is not None and std != 'teacher':
            self.set_projection(feature_dim, 1)

    @property
    def is_ready(self) -> bool:
        """Whether the hash functions have been drawn."""
        return hasattr(self, 'weight')

    @property
    def _calibrates(self) -> bool:
        return self.bias_kind != 'zero' or self.std == 'features'

    def set_projection(self, feature_dim: int, std: float) -> None:
        """Draw the hash functions, for D and std that the user left open."""
        dim = self.feature_dim or feature_dim
        std = float(std if self.std in STDS else self.std)
        check_positive('std', std)
        num_hashes = self.num_hashes or 4 * dim
        if (self.hashes_per_step or 0) > num_hashes:
            raise ConfigError(
                f'hashes_per_step: must be at most num_hashes, {num_hashes}, '
                f'but got {self.hashes_per_step}'
            )
        weight = random_projection(num_hashes, dim, std, self.seed)
        self.register_buffer('weight', weight, persistent=False)
        self.register_buffer('bias', weight.new_zeros(num_hashes))
        self.register_buffer('sums', weight.sum(dim=1))
        self._std = std  # as drawn
        # Saved, so that a checkpoint tells what its bias and std are.
        if self.bias_kind != 'zero':
            kind = weight.new_zeros((), dtype=torch.int64)
            self.register_buffer('bias_is', kind)
        if self.std == 'features':
            self.register_buffer('spread', weight.new_zeros(()))
        self.needs_calibration = self._calibrates

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
            self.spread.fill_(float(spread) * (float(self.spread) or 1.0))
        self.needs_calibration = False

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any
    ) -> None:
        """Load; bias and std of another kind than here are not taken.

        Raises:
            ConfigError: If the file was made with other hash functions.
        """
        if not self.is_ready:
            super()._load_from_state_dict(state_dict, prefix, *args)
            return
        scales = self.std == 'features'
        spread = float(state_dict.get(f'{prefix}spread', 0))
        kind = BIASES[int(state_dict.get(f'{prefix}bias_is', 0))]
        same = kind == self.bias_kind and (spread > 0) == scales
        sums = state_dict.get(f'{prefix}sums', self.sums)
        weight = state_dict.pop(f'{prefix}weight', None)  # of older files
        if weight is not None and not scales:
            sums = weight.sum(dim=1)
        if sums.shape != self.sums.shape:
            same = False
        elif same and not self._is_own(sums):
            raise ConfigError(
                f'{prefix[:-1]}: the checkpoint was made with other hash '
                f'functions than those of seed={self.seed} and a std of '
                f'{self._std:.4g}; take its seed, std and teacher, or load '
                f'its student alone, see tools/export_student.py'
            )
        else:
            state_dict[f'{prefix}sums'] = self.sums
        if self.hashes_per_step is None:
            state_dict.pop(f'{prefix}step', None)
        else:
            state_dict.setdefault(f'{prefix}step', torch.zeros_like(self.step))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.needs_calibration = self._calibrates and not same
        if not same:
            self.bias.zero_()
        if scales:
            self.spread.fill_(spread if same else 0)
            drawn = self._draw()
            self.weight.copy_(drawn / self.spread if same else drawn)
        if self.hashes_per_step is not None:
            self._steps = int(self.step)

    def _draw(self) -> Tensor:
        """The weights of the hash functions before any calibration, (K, D)."""
        count, dim = self.weight.shape
        return random_projection(count, dim, self._std, self.seed).to(
            self.weight
        )

    def _is_own(self, sums: Tensor) -> bool:
        """Whether sums of hash weights, (K,), are those of this draw."""
        size = self._std * self.weight.shape[1] ** 0.5
        least = torch.finfo(sums.dtype).eps * self.sums.abs()
        off = (sums.to(self.sums) - self.sums).abs() - least
        return float(off.max()) <= ROUNDING * size

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Let the same hash functions count in all calls of a training step.

        All ranks count alike, whatever features they have.
        """
        if self.training and self.hashes_per_step is not None:
            self._rows = self._next_rows()
        try:
            yield
        finally:
            self._rows = None

    def _next_rows(self) -> Tensor:
        """Indices of the hash functions of the next step."""
        assert self.hashes_per_step is not None
        self._steps += 1
        self.step.fill_(self._steps)
        return some_of(
            len(self.weight), self.hashes_per_step, self.seed, self._steps
        ).to(self.weight.device)

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
        weight, bias = self.weight, self.bias
        if self.training and self.hashes_per_step is not None:
            rows = self._next_rows() if self._rows is None else self._rows
            weight, bias = weight[rows], bias[rows]
        loss = lsh_loss(
            s_feature,
            t_feature,
            weight,
            bias,
            self.mode,
            sample_weight,
            self.precision,
        )
        return self.loss_weight * loss

    def extra_repr(self) -> str:
        """State the settings in ``print(model)``."""
        shape = tuple(self.weight.shape) if self.is_ready else None
        return (
            f'weight={shape}, std={self.std}, bias={self.bias_kind!r}, '
            f'mode={self.mode!r}, loss_weight={self.loss_weight}, '
            f'seed={self.seed}, hashes_per_step={self.hashes_per_step}, '
            f'precision={self.precision!r}'
        )
