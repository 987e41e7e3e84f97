"""Which RoIs of an image are mimicked or measured."""

import torch
from torch import Tensor


def pick_rois(
    rois: Tensor, foreground: Tensor, max_rois: int, seed: int
) -> Tensor:
    """Pick RoIs of each image: foreground first, then a draw of the rest.

    The draw depends on the seed alone and leaves all random states alone.

    Args:
        rois (Tensor): Index of the image and box, (R, 5).
        foreground (Tensor): bool, (R,).
        max_rois (int): How many an image keeps at most. If more are
            foreground, they are drawn too.
        seed (int): Seed of the draw.

    Returns:
        Tensor: Rows of ``rois``, ascending, int64, (M,).
    """
    generator = torch.Generator('cpu').manual_seed(seed)
    keys = torch.rand(len(rois), generator=generator, device='cpu')
    keys = keys.to(rois.device)
    order = (keys - foreground.to(keys)).argsort()
    order = order[rois[order, 0].argsort(stable=True)]
    images = rois[order, 0].contiguous()
    rank = torch.arange(len(rois), device=rois.device)
    rank = rank - torch.searchsorted(images, images)
    return order[rank < max_rois].sort().values


def jittered_rois(
    boxes: list[Tensor],
    sizes: list[tuple[int, int]],
    num_rois: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw boxes around those of objects, as a trained RPN would find them.

    As in mmdet's samplers a quarter lies close to an object, within a tenth
    of its size and a seventh of its scale, and the others anywhere up to
    one and a half of its sizes away, at half to twice its scale. An image
    without an object gets boxes anywhere.

    Args:
        boxes (list[Tensor]): Objects of each image, (x1, y1, x2, y2) in
            pixels, (G, 4).
        sizes (list[tuple]): Height and width of each image.
        num_rois (int): How many boxes an image gets.
        generator (torch.Generator): On the CPU.

    Returns:
        Tensor: Index of the image and box, float32, (R, 5).
    """

    def uniform(low: float, high: float) -> Tensor:
        draw = torch.rand(num_rois, 2, generator=generator)
        return low + (high - low) * draw

    rois = []
    with torch.device('cpu'):  # that of the generator
        near = torch.arange(num_rois)[:, None] < num_rois // 4
        images = zip(boxes, sizes, strict=True)
        for index, (objects, (height, width)) in enumerate(images):
            frame = torch.tensor([width, height], dtype=torch.float32)
            if len(objects):
                pick = torch.randint(
                    len(objects), (num_rois,), generator=generator
                )
                picked = objects.detach().float().cpu()[pick]
                centre = (picked[:, :2] + picked[:, 2:]) / 2
                side = (picked[:, 2:] - picked[:, :2]).clamp(min=1)
                shift = torch.where(near, 0.1, 1.5) * uniform(-1, 1)
                scale = torch.where(near, 0.2, 1.0) * uniform(-1, 1)
                centre, side = centre + shift * side, side * 2**scale
            else:
                centre = uniform(0, 1) * frame
                side = uniform(0.05, 0.5) * frame
            corners = torch.cat([centre - side / 2, centre + side / 2], dim=1)
            corners = corners.clamp(min=0).minimum(frame.repeat(2))
            image = torch.full((num_rois, 1), float(index))
            rois.append(torch.cat([image, corners], dim=1))
        joined = torch.cat(rois)
    return joined[(joined[:, 3:] - joined[:, 1:3] >= 1).all(dim=1)]
