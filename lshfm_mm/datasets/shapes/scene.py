"""Scenes of shapes: what is in an image, and its pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ...errors import check_int

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Window = tuple[slice, ...]
Colour = tuple[float, ...]
CLASSES: tuple[str, ...] = (
    'circle',
    'square',
    'triangle',
    'star',
    'cross',
    'ring',
)
VIEWS = ('labels', 'crops')
CLUTTER = -1  # label of a layer that is no object
# Least and greatest length in pixels. The greatest holds at a size of 160 and
# grows with the size, the least is what can be told at any size.
EXTENT = (16.0, 62.0)  # diameter of a shape
BAR = (20.0, 140.0)  # length of a bar
BAR_WIDTH = (1.4, 6.0)
BLOB = (12.0, 60.0)  # diameter of a blob behind the objects
FRONT_BLOB = (10.0, 20.0)  # diameter of a blob in front of them
MIN_SIZE = 64  # side of an image in pixels
MIN_SIDE = 6  # pixels, shorter side of the box around what is seen of a form
MIN_PIXELS = 36  # seen of a form
# Fractions of the whole area of a form that must be seen.
OBJECT_SHARE = 0.6
DECOY_SHARE = 0.75  # of halves and blobs; hidden more, they could be objects
BAR_SHARE = 0.0
MAX_OBJECTS = 5
TRIES = 30  # places tried for an object before it is left out
REACH = 1.2  # radii, the farthest point of a shape from its centre
NOISE = (3.0, 8.0)  # grey levels, standard deviation
CONTRAST = (45.0, 150.0)  # grey levels, distance between two BGR colours
CONTRAST_TO_NOISE = 3.0  # least contrast in standard deviations of the noise


class Shape(NamedTuple):
    """One labelled object of an image.

    Attributes:
        label (int): Index into :data:`CLASSES`.
        box (tuple[int, int, int, int]): Tight box of the visible pixels:
            left, top, width, height in pixels.
        mask (np.ndarray): Visible pixels, bool, (H, W).
    """

    label: int
    box: tuple[int, int, int, int]
    mask: Mask


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


class Scene(NamedTuple):
    """An image before it is painted.

    Attributes:
        background (np.ndarray): Colours, (H, W, 3).
        layers (list[Layer]): From back to front.
        owner (np.ndarray): Index of the layer that is seen at a pixel, -1
            for the background, (H, W).
        noise (float): Standard deviation of the noise in grey levels.
    """

    background: Floats
    layers: list[Layer]
    owner: npt.NDArray[np.int16]
    noise: float


def render(
    rng: np.random.Generator, size: int
) -> tuple[npt.NDArray[np.uint8], list[Shape]]:
    """Draw one image with its objects.

    Args:
        rng (np.random.Generator): Source of all randomness.
        size (int): Side of the image in pixels, at least :data:`MIN_SIZE`.

    Returns:
        tuple[np.ndarray, list[Shape]]: The image, uint8, BGR, (H, W, 3), and
        its 1 to :data:`MAX_OBJECTS` objects from back to front.

    Raises:
        ConfigError: If ``size`` is too small.

    Example:
        >>> image, objects = render(np.random.default_rng(0), 160)
        >>> image.shape
        (160, 160, 3)
        >>> 1 <= len(objects) <= MAX_OBJECTS
        True
    """
    check_int('size', size, MIN_SIZE)
    scene = compose(rng, size)
    noise = rng.standard_normal((size, size, 3), np.float32)
    # One pass that adds, rounds and clips to 0..255.
    image = cv2.addWeighted(
        paint(scene), 1, noise, scene.noise, 0, dtype=cv2.CV_8U
    )
    objects = []
    for index, layer in enumerate(scene.layers):
        if layer.label != CLUTTER:
            mask = scene.owner == index
            objects.append(Shape(layer.label, _tight_box(mask), mask))
    return np.asarray(image, np.uint8), objects


def compose(rng: np.random.Generator, size: int) -> Scene:
    """Draw a scene: clutter, then objects, then clutter that hides some.

    What is hidden too much, by the border or by what lies on it, or would
    hide too much of another form, is placed elsewhere or left out. So no
    unlabelled rest of an object stays in the image.

    Args:
        rng (np.random.Generator): Source of all randomness.
        size (int): Side of the image in pixels.

    Returns:
        Scene: With 1 to :data:`MAX_OBJECTS` objects.
    """
    composer = _Composer(rng, size)
    for _ in range(rng.integers(0, 3)):
        composer.add_bar()
    for _ in range(rng.integers(0, 2)):
        composer.add_blob(BLOB)
    for _ in range(rng.integers(0, 2)):
        composer.add_half()
    labels = rng.integers(len(CLASSES), size=rng.integers(1, MAX_OBJECTS + 1))
    while not composer.objects:
        for label in labels:
            composer.add_object(int(label))
    for _ in range(rng.integers(0, 2)):
        composer.add_bar(near_object=0.7)
    for _ in range(rng.integers(0, 2)):
        composer.add_blob(FRONT_BLOB, near_object=0.7)
    return Scene(
        composer.background, composer.layers, composer.owner, composer.noise
    )


def paint(scene: Scene, without: int | None = None) -> Floats:
    """Paint a scene without its noise.

    Args:
        scene (Scene): What to paint.
        without (int | None): Index of a layer to leave out.

    Returns:
        np.ndarray: Colours, (H, W, 3).
    """
    canvas = scene.background.copy()
    for index, layer in enumerate(scene.layers):
        if index != without:
            canvas[layer.window][layer.mask] = layer.fill.T
    return canvas


def shape_mask(label: int, u: Floats, v: Floats, detail: float = 0.5) -> Mask:
    """Tell which points lie in a shape of unit radius at the origin.

    Args:
        label (int): Index into :data:`CLASSES`.
        u (np.ndarray): First coordinates in radii, any shape.
        v (np.ndarray): Second coordinates in radii, like ``u``.
        detail (float): From 0 (plump star or cross, ring with a small hole)
            to 1 (slender star or cross, thin ring).

    Returns:
        np.ndarray: bool, like ``u``.
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


class _Composer:
    """A scene that grows layer by layer, see :func:`compose`.

    Attributes:
        background (np.ndarray): Colours, (H, W, 3).
        owner (np.ndarray): Index of the layer seen at a pixel, (H, W).
        layers (list[Layer]): From back to front.
        objects (list[int]): Indices of those layers that are objects.
        noise (float): Standard deviation of the noise in grey levels.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        self.noise = float(rng.uniform(*NOISE))
        self.background = _background(rng, size)
        self.owner = np.full((size, size), -1, np.int16)
        self.layers: list[Layer] = []
        self.objects: list[int] = []

    def add_object(self, label: int) -> None:
        """Add an object, or nothing if no place is free enough."""
        radius = self._length(EXTENT) / 2
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
        radius = self._length(EXTENT) / 2
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
        """Draw a place and an angle; return what is to be painted there.

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
        angle = self.rng.uniform(0, 2 * math.pi)
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
        """Add a layer unless too little of it or of another would be seen.

        Args:
            label (int): Index into :data:`CLASSES`, or :data:`CLUTTER`.
            share (float): Fraction of its area that must be seen.
            window (tuple[slice, ...]): May reach beyond the image.
            mask (np.ndarray): Pixels to paint, bool, (h, w).
            u (np.ndarray): First coordinates in radii, (h, w).
            v (np.ndarray): Second coordinates in radii, (h, w).

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
        if not _is_clear(mask, area, share):
            return False
        covered = np.bincount(self.owner[inside][mask] + 1)
        below = np.flatnonzero(covered[1:]).tolist()
        owner = self.owner.copy()
        owner[inside][mask] = len(self.layers)
        for index in below:
            layer = self.layers[index]
            seen = owner[layer.window] == index
            if not _is_clear(seen, layer.area, layer.share):
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
        self.layers.append(
            Layer(label, inside, mask, fill, colour, area, share)
        )
        self.owner = owner
        return True

    def _draw_colour(
        self, start: Colour, others: list[Colour]
    ) -> tuple[Colour, Colour]:
        """Draw a colour at some distance from others.

        Args:
            start (tuple[float, ...]): Colour to step away from.
            others (list[tuple[float, ...]]): More to stay off.

        Returns:
            tuple: The colour, and its change per radius.
        """
        low = max(CONTRAST[0], CONTRAST_TO_NOISE * self.noise)
        contrast = self._log_uniform(low, CONTRAST[1])
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


def _background(rng: np.random.Generator, size: int) -> Floats:
    """Draw smooth noise of four scales and two striped patches.

    Args:
        rng (np.random.Generator): Source of all randomness.
        size (int): Side of the image in pixels.

    Returns:
        np.ndarray: Colours, (H, W, 3).
    """
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


def _is_clear(seen: Mask, area: int, share: float) -> bool:
    """Whether enough of a form of ``area`` pixels is seen, (h, w)."""
    if not share:
        return True
    pixels = np.count_nonzero(seen)
    if pixels < max(MIN_PIXELS, share * area):
        return False
    return min(_tight_box(seen)[2:]) >= MIN_SIDE


def _tight_box(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels of a mask, (h, w)."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return left, top, width, height
