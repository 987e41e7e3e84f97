"""The forms of shapes, and what lies behind them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
CLASSES = 'circle', 'square', 'triangle', 'star', 'cross', 'ring'
REACH = 1.2  # radii, the farthest point of a shape from its centre


def shape_mask(label: int, u: Floats, v: Floats, detail: float = 0.5) -> Mask:
    """Tell which points lie in a shape of unit radius at the origin.

    Args:
        label (int): Index into :data:`CLASSES`.
        u (np.ndarray): First coordinates in radii, any shape.
        v (np.ndarray): Second coordinates in radii, like ``u``.
        detail (float): From 0 (plump star or cross, ring with a small hole)
            to 1 (slender star or cross, thin ring).
    """
    name = CLASSES[label]
    if name == 'circle':
        return u * u + v * v <= 0.95**2
    if name == 'ring':
        squared = u * u + v * v
        hole = 0.36 + 0.3 * detail
        return (squared <= 0.97**2) & (squared >= hole**2)
    if name == 'square':
        return np.maximum(np.abs(u), np.abs(v)) <= 0.84
    if name == 'triangle':
        return (v <= 0.58) & (math.sqrt(3) * np.abs(u) - v <= 1.16)
    if name == 'cross':
        arm = 0.38 - 0.12 * detail
        u, v = np.abs(u), np.abs(v)
        return (np.maximum(u, v) <= 0.98) & (np.minimum(u, v) <= arm)
    # A star is a triangle (centre, tip, notch) and its nine reflections.
    notch, tip, tenth = 0.62 - 0.14 * detail, 1.12, math.pi / 5
    angle = np.abs(np.mod(np.arctan2(v, u), 2 * tenth) - tenth)
    radius = np.hypot(u, v)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    tip_x, tip_y = tip * math.cos(tenth), tip * math.sin(tenth)
    return np.less_equal((x - notch) * tip_y, y * (tip_x - notch))


def background(rng: np.random.Generator, size: int) -> Floats:
    """Draw smooth noise of four scales and two striped patches, (H, W, 3)."""
    # Nothing in it is fine enough to need the full resolution.
    side = size // 2
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = rng.uniform(80, 175) + rng.uniform(-35, 35, 3)
    for cells, strength in ((3, 22), (8, 12), (20, 8), (50, 6)):
        grid = rng.standard_normal((cells, cells, 3), np.float32)
        grid *= rng.uniform(0, strength)
        canvas += cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
    line = np.linspace(0, 1, side, dtype=np.float32)
    for _ in range(2):
        centre, spread = rng.uniform(0, 1, 2), rng.uniform(0.08, 0.25)
        ways = rng.uniform(-1, 1, 2) * rng.uniform(50, 150)
        # Waves exp(i (x + y)) under a bell are an outer product.
        x, y = (
            np.exp(1j * way * line - ((line - middle) / spread) ** 2)
            for way, middle in zip(ways, centre, strict=True)
        )
        stripes = np.outer(y, x).real.astype(np.float32)
        tint = rng.uniform(-25, 25, 3).astype(np.float32)
        canvas += stripes[..., None] * tint
    return cv2.resize(canvas, (size, size)).clip(0, 255)
