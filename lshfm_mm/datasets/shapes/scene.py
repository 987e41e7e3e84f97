"""Scenes of shapes: what is in an image, and its pixels."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import check_int
from .forms import CLASSES, Floats, Mask
from .layers import (
    BLOB,
    CLUTTER,
    EASY,
    FRONT_BLOB,
    HARD,
    Scene,
    tight_box,
)

MAX_OBJECTS = 5
MIN_SIZE = 64  # side of an image in pixels


class Shape(NamedTuple):
    """One labelled object of an image.

    Attributes:
        label (int): Index into :data:`CLASSES`.
        box (tuple[int, int, int, int]): Tight box of what is visible: left,
            top, width, height in pixels.
        mask (np.ndarray): Visible pixels, bool, (H, W).
    """

    label: int
    box: tuple[int, int, int, int]
    mask: Mask


def render(
    rng: np.random.Generator, size: int, easy: bool = False
) -> tuple[npt.NDArray[np.uint8], list[Shape]]:
    """Draw one image of ``size`` pixels a side, with its objects.

    Easy ones are large, upright and of strong colours, with no clutter.

    Returns:
        tuple[np.ndarray, list[Shape]]: The image, uint8, BGR, (H, W, 3), and
        its 1 to :data:`MAX_OBJECTS` objects from back to front.

    Raises:
        ConfigError: If ``size`` is less than :data:`MIN_SIZE`.

    Example:
        >>> image, objects = render(np.random.default_rng(0), 160)
        >>> image.shape
        (160, 160, 3)
        >>> 1 <= len(objects) <= MAX_OBJECTS
        True
    """
    check_int('size', size, MIN_SIZE)
    scene = compose(rng, size, easy)
    noise = rng.standard_normal((size, size, 3), np.float32)
    # One pass that adds, rounds and clips to 0..255.
    image = cv2.addWeighted(
        paint(scene), 1, noise, scene.noise, 0, dtype=cv2.CV_8U
    )
    objects = []
    for index, layer in enumerate(scene.layers):
        if layer.label != CLUTTER:
            mask = scene.owner == index
            objects.append(Shape(layer.label, tight_box(mask), mask))
    return np.asarray(image, np.uint8), objects


def compose(rng: np.random.Generator, size: int, easy: bool = False) -> Scene:
    """Draw a scene: clutter, then objects, then clutter that hides some.

    What is hidden too much, by the border or by what lies on it, or would
    hide too much of another form, is placed elsewhere or left out. So no
    unlabelled rest of an object stays in the image.
    """
    scene = Scene(rng, size, EASY if easy else HARD)
    if scene.look.clutter:
        for _ in range(rng.integers(0, 3)):
            scene.add_bar()
        for _ in range(rng.integers(0, 2)):
            scene.add_blob(BLOB)
        for _ in range(rng.integers(0, 2)):
            scene.add_half()
    labels = rng.integers(len(CLASSES), size=rng.integers(1, MAX_OBJECTS + 1))
    while not scene.objects:
        for label in labels:
            scene.add_object(int(label))
    if scene.look.clutter:
        for _ in range(rng.integers(0, 2)):
            scene.add_bar(near_object=0.7)
        for _ in range(rng.integers(0, 2)):
            scene.add_blob(FRONT_BLOB, near_object=0.7)
    return scene


def paint(scene: Scene) -> Floats:
    """Paint a scene without its noise: colours, (H, W, 3)."""
    canvas = scene.background.copy()
    for layer in scene.layers:
        canvas[layer.window][layer.mask] = layer.fill.T
    return canvas
