"""Layers of a scene: their places, forms and colours."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from .forms import CLASSES, REACH, Floats, Mask, background, shape_mask

Window = tuple[slice, ...]
Colour = tuple[float, ...]
CLUTTER = -1  # label of a layer that is no object
# Least and greatest length in pixels. The greatest holds at a size of 160 and
# grows with the size, the least is what can be told at any size.
BAR = (20.0, 140.0)  # length of a bar
BAR_WIDTH = (1.4, 6.0)
BLOB = (12.0, 60.0)  # diameter of a blob behind the objects
FRONT_BLOB = (10.0, 20.0)  # diameter of a blob in front of them
MIN_SIDE = 6  # pixels, shorter side of the box around what is seen of a form
MIN_PIXELS = 36  # seen of a form
# Fractions of the whole area of a form that must be seen.
OBJECT_SHARE = 0.6
DECOY_SHARE = 0.75  # of halves and blobs; hidden more, they could be objects
BAR_SHARE = 0.0
TRIES = 30  # places tried for an object before it is left out
CONTRAST_TO_NOISE = 3.0  # least contrast in standard deviations of the noise


class Look(NamedTuple):
    """How hard shapes are to find and to tell.

    Attributes:
        extent (tuple[float, float]): Diameter of a shape, as above.
        noise (tuple[float, float]): Its standard deviation, in grey levels.
        contrast (tuple[float, float]): Distance between two BGR colours, in
            grey levels.
        turn (float): Greatest angle of a form, in radians.
        texture (float): Share of the background's variation that is kept.
        clutter (bool): Whether there are forms that are no objects.
    """

    extent: tuple[float, float]
    noise: tuple[float, float]
    contrast: tuple[float, float]
    turn: float
    texture: float
    clutter: bool


HARD = Look((16.0, 62.0), (3.0, 8.0), (45.0, 150.0), 2 * math.pi, 1.0, True)
# Large, upright, of strong colours, alone on a calm background.
EASY = Look((20.0, 60.0), (1.0, 3.0), (110.0, 160.0), 0.4, 0.35, False)


class Layer(NamedTuple):
    """What is painted in one go: an object or a piece of clutter.

    Attributes:
        label (int): Index into :data:`CLASSES`, or :data:`CLUTTER`.
        window (tuple[slice, ...]): Rows and columns of the image.
        mask (np.ndarray): Painted pixels, bool, (h, w).
        fill (np.ndarray): Colours of the n painted pixels, (3, n).
        colour (tuple[float, ...]): The colour at the centre, (3,).
        area (int): Pixels of the whole form, those beyond the image
            included.
        share (float): Fraction of the area that must be seen.
    """

    label: int
    window: Window
    mask: Mask
    fill: Floats
    colour: Colour
    area: int
    share: float


class Scene:
    """An image before it is painted; it grows layer by layer.

    Attributes:
        background (np.ndarray): Colours, (H, W, 3).
        owner (np.ndarray): Index of the layer that is seen at a pixel, -1
            for the background, (H, W).
        layers (list[Layer]): From back to front.
        objects (list[int]): Indices of those layers that are objects.
        noise (float): Standard deviation of the noise in grey levels.
    """

    def __init__(
        self, rng: np.random.Generator, size: int, look: Look = HARD
    ) -> None:
        self.rng = rng
        self.size = size
        self.look = look
        self.noise = float(rng.uniform(*look.noise))
        self.background = background(rng, size)
        if look.texture < 1:
            mean = self.background.mean((0, 1))
            self.background = mean + look.texture * (self.background - mean)
        self.owner = np.full((size, size), -1, np.int16)
        self.layers: list[Layer] = []
        self.objects: list[int] = []

    def add_object(self, label: int) -> None:
        """Add an object, or nothing if no place is free enough."""
        radius = self._length(self.look.extent) / 2
        detail = self.rng.random()
        squeeze = self.rng.uniform(0.82, 1)
        for _ in range(TRIES):
            window, u, v = self._grid(radius, REACH, 0.5, 0.3)
            mask = shape_mask(label, u, v / squeeze, detail)
            if self._add(label, OBJECT_SHARE, window, mask, u, v):
                return

    def add_half(self) -> None:
        """Add half a circle, cross or ring, which is no object.

        Halves of the other shapes could pass for whole or covered ones.
        """
        name = ('circle', 'cross', 'ring')[self.rng.integers(3)]
        radius = self._length(self.look.extent) / 2
        window, u, v = self._grid(radius, REACH, inside=REACH)
        mask = shape_mask(CLASSES.index(name), u, v, self.rng.random())
        self._add(CLUTTER, DECOY_SHARE, window, mask & (u >= 0), u, v)

    def add_bar(self, near_object: float = 0.0) -> None:
        """Add a thin straight bar."""
        radius = self._length(BAR) / 2
        width = self._length(BAR_WIDTH)
        window, u, v = self._grid(radius, 1.05, near_object=near_object)
        mask = (np.abs(u) <= 1) & (np.abs(v) * (2 * radius) <= width)
        self._add(CLUTTER, BAR_SHARE, window, mask, u, v)

    def add_blob(
        self, extent: tuple[float, float], near_object: float = 0.0
    ) -> None:
        """Add a blob: an ellipse that is bent like a bean."""
        radius = self._length(extent) / 2
        window, u, v = self._grid(radius, 1.1, 1.1, near_object)
        bend = self.rng.uniform(0.4, 1.2)
        slender = self.rng.uniform(1.4, 2.8)
        bent = (v + bend * (0.4 - u * u)) * slender
        mask = u * u + bent * bent <= 1
        self._add(CLUTTER, DECOY_SHARE, window, mask, u, v)

    def _length(self, limits: tuple[float, float]) -> float:
        """Draw a length in pixels."""
        return self._log_uniform(limits[0], limits[1] * self.size / 160)

    def _log_uniform(self, low: float, high: float) -> float:
        return low * math.pow(high / low, self.rng.random())

    def _grid(
        self,
        radius: float,
        reach: float,
        inside: float = 0.0,
        near_object: float = 0.0,
    ) -> tuple[Window, Floats, Floats]:
        """Draw a place and an angle for a form.

        Args:
            radius (float): Unit of the coordinates in pixels.
            reach (float): Half the side of the window in radii.
            inside (float): Least distance of the centre from the border in
                radii. Too much cut off, all shapes look the same, and half
                a circle that is cut looks like a circle.
            near_object (float): Probability to take a place at an object.

        Returns:
            tuple: The window, in pixels, not clipped at the image's border,
            and the coordinates of its pixels in radii, each (h, w).
        """
        margin = inside * radius
        x, y = self.rng.uniform(margin, self.size - margin, 2).tolist()
        if self.objects and self.rng.random() < near_object:
            chosen = self.objects[self.rng.integers(len(self.objects))]
            rows, columns = self.layers[chosen].window
            x = self.rng.uniform(columns.start, columns.stop)
            y = self.rng.uniform(rows.start, rows.stop)
            x = min(max(x, margin), self.size - margin)
            y = min(max(y, margin), self.size - margin)
        angle = self.rng.uniform(0, self.look.turn)
        cosine, sine = math.cos(angle) / radius, math.sin(angle) / radius
        left, top = int(x - reach * radius) - 1, int(y - reach * radius) - 1
        side = int(2 * reach * radius) + 4
        steps = np.arange(side, dtype=np.float32)
        dx, dy = steps + (left - x), steps[:, None] + (top - y)
        window = slice(top, top + side), slice(left, left + side)
        return window, dx * cosine + dy * sine, dy * cosine - dx * sine

    def _add(
        self,
        label: int,
        share: float,
        window: Window,
        mask: Mask,
        u: Floats,
        v: Floats,
    ) -> bool:
        """Add a layer, unless too little of it or of another would be seen.

        See :class:`Layer`, but the window may reach beyond the image, and
        ``u`` and ``v`` are its coordinates in radii, (h, w).

        Returns:
            bool: Whether the layer was added.
        """
        area = int(np.count_nonzero(mask))
        # The part of the window inside the image, in either's coordinates.
        inside = tuple(
            slice(max(part.start, 0), min(part.stop, self.size))
            for part in window
        )
        inner = tuple(
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(inside, window, strict=True)
        )
        mask = mask[inner]
        if not is_clear(mask, area, share):
            return False
        covered = np.bincount(self.owner[inside][mask] + 1)
        below = np.flatnonzero(covered[1:]).tolist()
        owner = self.owner.copy()
        owner[inside][mask] = len(self.layers)
        for index in below:
            layer = self.layers[index]
            seen = owner[layer.window] == index
            if not is_clear(seen, layer.area, layer.share):
                return False
        y, x = ((part.start + part.stop) // 2 for part in inside)
        start = self.background[y, x].tolist()
        # Clutter may fade into the clutter that it covers.
        avoid = below if label != CLUTTER or self.objects else []
        colour, tint = self._draw_colour(
            start, [self.layers[index].colour for index in avoid]
        )
        ramp = (u + self.rng.uniform(-1, 1) * v)[inner][mask]
        fill = np.array(tint, np.float32)[:, None] * ramp
        fill += np.array(colour, np.float32)[:, None]
        if label != CLUTTER:
            self.objects.append(len(self.layers))
        layer = Layer(label, inside, mask, fill, colour, area, share)
        self.layers.append(layer)
        self.owner = owner
        return True

    def _draw_colour(
        self, start: Colour, others: list[Colour]
    ) -> tuple[Colour, Colour]:
        """Draw a colour at some distance from ``start`` and others.

        Returns:
            tuple: The colour, and its change per radius.
        """
        least, greatest = self.look.contrast
        low = max(least, CONTRAST_TO_NOISE * self.noise)
        contrast = self._log_uniform(low, greatest)
        for step in self.rng.standard_normal((8, 3)).tolist():
            step = [part * contrast / math.hypot(*step) for part in step]
            colour = tuple(
                min(max(value + part, 5), 250)
                for value, part in zip(start, step, strict=True)
            )
            if all(math.dist(colour, other) >= low for other in others):
                break
        share = self.rng.uniform(-0.25, 0.25)
        return colour, tuple(part * share for part in step)


def is_clear(seen: Mask, area: int, share: float) -> bool:
    """Whether enough of a form of ``area`` pixels is seen, (h, w)."""
    if not share:
        return True
    enough = int(np.count_nonzero(seen)) >= max(MIN_PIXELS, share * area)
    return enough and min(tight_box(seen)[2:]) >= MIN_SIDE


def tight_box(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels of a mask, (h, w)."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, width, height
