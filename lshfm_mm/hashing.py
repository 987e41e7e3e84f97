"""Random-hyperplane hashing of features (paper, section 3.2).

Legend: N samples, D feature width, K hash functions.

A hash function is a hyperplane of the feature space: a frozen weight (D,)
and a frozen bias. Its code for a feature is the side on which that feature
lies. With bias 0 two features get the same code with probability
``1 - angle / pi``: codes compare directions, not magnitudes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
        Tensor: The weights, float32, (K, D).
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_hashes, feature_dim, generator=generator) * std


def project(feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Signed, scaled distances of features to the hyperplanes.

    Args:
        feature (Tensor): Features, (N, D).
        weight (Tensor): Weights, (K, D).
        bias (Tensor): Biases, (K,).

    Returns:
        Tensor: ``feature @ weight.T + bias``, (N, K).
    """
    return F.linear(feature, weight, bias)


def hash_codes(feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Sides of the hyperplanes on which features lie.

    Args:
        feature (Tensor): Features, (N, D).
        weight (Tensor): Weights, (K, D).
        bias (Tensor): Biases, (K,).

    Returns:
        Tensor: True where a feature is strictly on the positive side, bool,
        (N, K).

    Example:
        >>> import torch
        >>> codes = hash_codes(
        ...     torch.tensor([[1.0, 2.0]]), torch.eye(2), -torch.ones(2)
        ... )
        >>> codes.tolist()
        [[False, True]]
    """
    return project(feature, weight, bias) > 0
