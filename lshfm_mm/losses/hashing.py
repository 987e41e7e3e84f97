"""Random-hyperplane hashing of features (paper, section 3.2).

Legend: N samples, D feature width, K hash functions.

A hash function is a hyperplane of the feature space: a frozen weight (D,)
and a frozen bias. Its code for a feature is the side on which that feature
lies. With bias 0 two features get the same code with probability
``1 - angle / pi``: codes compare directions, not magnitudes.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.nn.grad import conv2d_input

from ..errors import ConfigError

# Projections that exist at a time, see hashes_at_a_time.
BLOCK_ON_CPU = 2**21
BLOCK_ON_GPU = 2**24
# Entries of unfolded windows that exist at a time, see images_at_a_time.
UNFOLDED = 2**27


def random_projection(
    num_hashes: int, feature_dim: int, std: float, seed: int
) -> Tensor:
    """Draw the weights of the hash functions.

    The numbers depend on the arguments alone, and drawing them leaves every
    global random state as it was: all ranks and all runs get the same.

    Args:
        num_hashes (int): K.
        feature_dim (int): D.
        std (float): Standard deviation of the entries, which are normal with
            mean 0.
        seed (int): Seed of the generator.

    Returns:
        Tensor: The weights, float32, (K, D), on the default device; on the
        CPU where that is 'meta', which would lose the numbers.
    """
    generator = torch.Generator('cpu').manual_seed(seed)
    weight = torch.randn(
        num_hashes, feature_dim, generator=generator, device='cpu'
    )
    device = torch.get_default_device()
    return std * (weight if device.type == 'meta' else weight.to(device))


def some_of(count: int, wanted: int, seed: int, step: int) -> Tensor:
    """Draw some of the hash functions for a step.

    Like :func:`random_projection` it depends on its arguments alone. Each
    hash function is as likely as any other.

    Args:
        count (int): K.
        wanted (int): How many to draw, at most K.
        seed (int): Seed of the hash functions.
        step (int): Of training, or any other count.

    Returns:
        Tensor: Different indices, int64, (wanted,), on the CPU.
    """
    generator = torch.Generator('cpu')
    generator.manual_seed((1_000_003 * seed + step) % 2**63)
    return torch.randperm(count, generator=generator, device='cpu')[:wanted]


def hashes_at_a_time(feature: Tensor) -> int:
    """How many hash functions are applied to a feature at a time, >= 1.

    The feature is (N, D) or, a map, (N, C, H, W).
    A block of projections fits the cache of a CPU: 8 MB in float32. A GPU
    wants few, large kernels: there a block has 64 MB, and P3 of a RetinaNet
    (2 x 100 x 168 locations, 4096 hash functions) takes 9 of them. The loss
    holds five blocks at a time, or two and unfolded windows (see
    images_at_a_time): 40 MB on a CPU, for that P3 on a GPU 450 MB.
    """
    is_on_cpu = feature.device.type == 'cpu'
    block = BLOCK_ON_CPU if is_on_cpu else BLOCK_ON_GPU
    samples = feature.numel() // max(feature.shape[1], 1)
    return max(block // max(samples, 1), 1)


@contextmanager
def full_float32(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """Multiply in float32 or better, whatever the user has set.

    Autocast is off, and so are TF32 and bfloat16 in products of float32: a
    GPU has TF32, with 10 bits of mantissa, on for convolutions by default.
    With ``tf32`` it is on for all products. torch.compile leaves what is
    computed here out of its graphs.
    """
    is_old = not hasattr(torch.backends.cudnn, 'conv')  # torch < 2.9
    precision = _old_precision(tf32) if is_old else _precision(tf32)
    with torch.autocast(device.type, enabled=False), precision:
        yield


@contextmanager
def _precision(tf32: bool) -> Iterator[None]:
    backends: Any = torch.backends
    wanted = 'tf32' if tf32 else 'ieee'
    before = []
    try:
        # From the outermost inwards: what has no value of its own follows,
        # and is never written to, so that it inherits afterwards too.
        for level in (
            backends,
            backends.cudnn,
            backends.cudnn.conv,
            backends.cuda.matmul,
            backends.mkldnn.conv,
            backends.mkldnn.matmul,
        ):
            if level.fp32_precision != wanted:
                before.append((level, level.fp32_precision))
                level.fp32_precision = wanted
        yield
    finally:
        for level, precision in reversed(before):
            level.fp32_precision = precision


@contextmanager
def _old_precision(tf32: bool) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision('high' if tf32 else 'highest')
    try:
        yield
    finally:
        cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def window_of(feature: Tensor, weight: Tensor) -> int:
    """Side of the window that the hash functions see at a location.

    It is the odd k with ``D = C * k * k`` for maps, (N, C, H, W), and 1 for
    features, (N, D); raises ConfigError if there is none.
    """
    channels, dim = feature.shape[1], weight.shape[1]
    side = math.isqrt(dim // channels) if feature.dim() == 4 else 1
    if side % 2 == 0 or channels * side * side != dim:
        raise ConfigError(
            f'features: are {channels} wide, but the hash functions were made '
            f'for {dim}; set feature_dim accordingly'
        )
    return side


def is_convolved(feature: Tensor, side: int) -> bool:
    """Whether windows are projected by a convolution; else by a product.

    A convolution needs no unfolded windows. In full float32, though, cuDNN
    took ten times as long for it as the product does, and up to 64 GB.
    """
    return side == 1 or feature.device.type == 'cpu'


def images_at_a_time(feature: Tensor, weight: Tensor) -> int:
    """How many images of a map are hashed at a time, >= 1; of rows, all.

    Where windows are unfolded, those of a part have 512 MB at most in
    float32, or are of one image.

    Args:
        feature (Tensor): Features, (N, D), or maps, (N, C, H, W).
        weight (Tensor): Weights, (K, D).
    """
    if is_convolved(feature, window_of(feature, weight)):
        return max(len(feature), 1)
    entries = weight.shape[1] * feature.shape[2:].numel()
    return max(UNFOLDED // max(entries, 1), 1)


def in_blocks(
    tensors: Sequence[Tensor], weight: Tensor, bias: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Walk features and hash functions in blocks, whose memory is bounded.

    Args:
        tensors (Sequence[Tensor]): A feature, (N, D) or (N, C, H, W), and
            what is walked with it, all of N samples or images.
        weight (Tensor): Weights of the hash functions, (K, D).
        bias (Tensor): Their biases, (K,).

    Yields:
        tuple[Tensor, ...]: Some images of each tensor, and weights and biases
        of some hash functions; all are views.
    """
    size = images_at_a_time(tensors[0], weight)
    for parts in zip(*(x.split(size) for x in tensors), strict=True):
        step = hashes_at_a_time(parts[0])
        for w, b in zip(weight.split(step), bias.split(step), strict=True):
            yield *parts, w, b


def project(feature: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Signed, scaled distances of features to the hyperplanes.

    The feature of a location of a map is its k x k window, zero-padded, as a
    convolution sees it: the projection *is* a convolution.

    Args:
        feature (Tensor): Features, (N, D), or maps, (N, C, H, W).
        weight (Tensor): Weights, (K, D); for maps D = C * k * k, in the
            order of ``torch.nn.functional.unfold``.
        bias (Tensor, optional): Biases, (K,); None for 0.

    Returns:
        Tensor: ``feature @ weight.T + bias``, (N, K) or (N, K, H, W).
    """
    if feature.dim() == 2:
        return F.linear(feature, weight, bias)
    side = window_of(feature, weight)
    if not is_convolved(feature, side):
        windows = F.unfold(feature, side, padding=side // 2)
        planes = weight.expand(len(windows), -1, -1)
        if bias is None:
            sides = torch.bmm(planes, windows)
        else:
            sides = torch.baddbmm(bias[:, None], planes, windows)
        return sides.unflatten(2, feature.shape[2:])
    kernel = weight.view(len(weight), -1, side, side)
    return F.conv2d(feature, kernel, bias, padding=side // 2)


def project_back(distance: Tensor, weight: Tensor, shape: Size) -> Tensor:
    """The transpose of :func:`project`.

    It takes a gradient at projections, (N, K) or (N, K, H, W), through the
    ``weight``, (K, D), to the features, which have that ``shape``.
    """
    if distance.dim() == 2:
        return distance @ weight
    side = math.isqrt(weight.shape[1] // shape[1])
    if not is_convolved(distance, side):
        planes = weight.T.expand(len(distance), -1, -1)
        windows = torch.bmm(planes, distance.flatten(2))
        return F.fold(windows, shape[2:], side, padding=side // 2)
    kernel = weight.view(len(weight), -1, side, side)
    return conv2d_input(shape, kernel, distance, padding=side // 2)


def samples_of(
    feature: Tensor, weight: Tensor, keep: Tensor | None, size: int
) -> Iterator[Tensor]:
    """The samples of a feature as rows, (at most ``size``, D) at a time.

    Args:
        feature (Tensor): Features, (N, D), or maps, (N, C, H, W): a sample
            is the zero-padded window around a location.
        weight (Tensor): Weights, (K, D).
        keep (Tensor, optional): Which samples are wanted, bool, (N,), for
            maps (N, H, W). Defaults to all.
        size (int): How many rows at a time.
    """
    if feature.dim() == 2:
        yield from (feature if keep is None else feature[keep]).split(size)
        return
    side = window_of(feature, weight)
    if keep is None:
        keep = feature.new_ones(
            feature.shape[:1] + feature.shape[2:], dtype=torch.bool
        )
    padded = F.pad(feature, [side // 2] * 4)
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)  # a view
    for places in keep.nonzero().split(size):
        image, row, column = places.unbind(dim=1)
        yield windows[image, :, row, column].flatten(1)


def hash_codes(feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Sides of the hyperplanes on which features lie.

    Args:
        feature (Tensor): Features, (N, D), or maps, (N, C, H, W).
        weight (Tensor): Weights, (K, D).
        bias (Tensor): Biases, (K,).

    Returns:
        Tensor: True where a feature is strictly on the positive side, bool,
        (N, K) or (N, K, H, W).

    Example:
        >>> import torch
        >>> codes = hash_codes(
        ...     torch.tensor([[1.0, 2.0]]), torch.eye(2), -torch.ones(2)
        ... )
        >>> codes.tolist()
        [[False, True]]
    """
    return project(feature, weight, bias) > 0
