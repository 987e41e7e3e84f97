"""The patches into which a vision transformer cuts its images."""

from torch import nn

LEAST = 8  # px; those of ConvNeXt or Swin have 4, and lose 3 at most


def patch_layer(model: nn.Module) -> tuple[str, int] | None:
    """Find the convolution that makes a token of each patch.

    Patches do not overlap. What is left of an image at its right and lower
    edge, and is no whole patch, is left out or padded.

    Returns:
        tuple[str, int]: Its name and the side of a patch in px; None for a
        model without.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.padding in (0, (0, 0)):
            side = layer.stride[0]
            if side >= LEAST and layer.kernel_size == layer.stride:
                return name, side
    return None
