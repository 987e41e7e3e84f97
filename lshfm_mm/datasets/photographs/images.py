"""Shrinking of photographs."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

QUALITY = 90  # of JPEG


def shrink(
    source: Path, target: Path, side: int, which: Callable[..., int] = max
) -> tuple[int, int, float]:
    """Write an image with a longer side of at most ``side`` pixels.

    Args:
        source (Path): The image.
        target (Path): The JPEG to write.
        side (int): Of the smaller image, in pixels.
        which (Callable): ``min`` shrinks the shorter side instead.

    Returns:
        tuple: Width and height in pixels, and the new length over the old.
    """
    with Image.open(source) as file:
        image = file.convert('RGB')
    scale = min(side / which(image.size), 1.0)
    width, height = (max(round(x * scale), 1) for x in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    image.save(target, 'JPEG', quality=QUALITY)
    return width, height, scale
