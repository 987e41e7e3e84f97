"""Shrinking of photographs."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

QUALITY = 90  # of JPEG


Size = tuple[int, int]  # width and height in pixels


def shrink(
    source: Path, target: Path, side: int, which: Callable[..., int] = max
) -> tuple[Size, Size]:
    """Write an image with a longer side of at most ``side`` pixels.

    Args:
        source (Path): The image.
        target (Path): The JPEG to write.
        side (int): Of the smaller image, in pixels.
        which (Callable): ``min`` shrinks the shorter side instead.

    Returns:
        tuple[Size, Size]: Of the image, and of what is written.
    """
    with Image.open(source) as file:
        image = file.convert('RGB')
    scale = min(side / which(image.size), 1.0)
    width, height = (max(round(x * scale), 1) for x in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    small.save(target, 'JPEG', quality=QUALITY)
    return image.size, small.size
