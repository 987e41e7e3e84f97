"""The operators on inputs of the sizes that detectors have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Any], list[Tensor]]


@dataclass
class Case:
    """An operator on inputs of one size.

    Args:
        name (str): The operator.
        size (str): Its inputs.
        forward (Callable): Computes the values with a module of operators.
        backward (Callable, optional): Computes the gradients.
    """

    name: str
    size: str
    forward: Run
    backward: Run | None = None


def some_boxes(n: int, device: str) -> tuple[Tensor, Tensor]:
    """Boxes, (N, 4), around 100 objects of an image, and scores, (N,)."""
    centre = torch.rand(100, 2).repeat(n // 100 + 1, 1)[:n] * 800
    centre = centre + torch.randn(n, 2) * 8
    half = torch.exp(torch.randn(n, 2) * 0.3 + 3.5)
    boxes = torch.cat([centre - half, centre + half], 1)
    return boxes.to(device), torch.rand(n).to(device)


def suppression(device: str) -> list[Case]:
    """NMS of an RPN and of an image; the others in the sizes of tests."""
    many, few = some_boxes(4000, device), some_boxes(1000, device)
    on_cpu = [x.cpu() for x in few]
    dets = torch.cat([on_cpu[0], on_cpu[1][:, None]], 1)

    def soft(method: int) -> Run:
        def run(ext: Any) -> list[Tensor]:
            new = torch.zeros(1000, 5)
            kept = ext.softnms(*on_cpu, new, 0.3, 0.5, 1e-3, method, 0)
            return [kept, new]

        return run

    def match(ext: Any) -> list[Tensor]:
        groups = ext.nms_match(dets, 0.5)
        return [torch.tensor(x) for x in groups]

    def overlaps(mode: int) -> Run:
        def run(ext: Any) -> list[Tensor]:
            ious = torch.zeros(4000, 1000, device=device)
            ext.bbox_overlaps(many[0], few[0], ious, mode, False, 0)
            return [ious]

        return run

    return [
        Case('nms', '4000 boxes', lambda ext: [ext.nms(*many, 0.7, 0)]),
        Case('nms', '1000 boxes', lambda ext: [ext.nms(*few, 0.5, 0)]),
        Case('nms, offset 1', '1000', lambda ext: [ext.nms(*few, 0.5, 1)]),
        Case('soft-nms, naive', '1000 boxes', soft(0)),
        Case('soft-nms, linear', '1000 boxes', soft(1)),
        Case('soft-nms, Gaussian', '1000 boxes', soft(2)),
        Case('nms_match', '1000 boxes', match),
        Case('bbox_overlaps, IoU', '4000 x 1000', overlaps(0)),
        Case('bbox_overlaps, IoF', '4000 x 1000', overlaps(1)),
    ]


def some_rois(device: str) -> Tensor:
    """512 RoIs, (R, 5), of two images."""
    boxes, _ = some_boxes(512, device)
    image = torch.arange(512, device=device)[:, None] % 2
    return torch.cat([image, boxes.clamp(0, 800)], 1)


def pooling(device: str) -> list[Case]:
    """RoIs of two images, pooled from a map of stride 8."""
    maps = torch.randn(2, 256, 100, 100, device=device)
    rois = some_rois(device)
    shape = (512, 256, 7, 7)
    grad = torch.randn(shape, device=device)
    size = '512 RoIs of 2 x 256 x 100 x 100'

    def zeros(**kind: Any) -> Tensor:
        return torch.zeros(shape, device=device, **kind)

    def align(mode: int, ratio: int, aligned: bool) -> list[Run]:
        settings = (7, 7, 1 / 8, ratio, mode, aligned)
        argmax = [zeros(), zeros()]

        def forward(ext: Any) -> list[Tensor]:
            output = zeros()
            ext.roi_align_forward(maps, rois, output, *argmax, *settings)
            return [output]

        def backward(ext: Any) -> list[Tensor]:
            into = torch.zeros_like(maps)
            ext.roi_align_backward(grad, rois, *argmax, into, *settings)
            return [into]

        return [forward, backward]

    def pool() -> list[Run]:
        argmax = zeros(dtype=torch.int32)

        def forward(ext: Any) -> list[Tensor]:
            output = zeros()
            ext.roi_pool_forward(maps, rois, output, argmax, 7, 7, 1 / 8)
            return [output, argmax]

        def backward(ext: Any) -> list[Tensor]:
            into = torch.zeros_like(maps)
            ext.roi_pool_backward(grad, rois, argmax, into, 7, 7, 1 / 8)
            return [into]

        return [forward, backward]

    def deform_pool() -> list[Run]:
        offset = torch.randn(512, 2, 7, 7, device=device)
        settings = (7, 7, 1 / 8, 2, 0.1)

        def forward(ext: Any) -> list[Tensor]:
            output = zeros()
            ext.deform_roi_pool_forward(maps, rois, offset, output, *settings)
            return [output]

        def backward(ext: Any) -> list[Tensor]:
            into = [torch.zeros_like(x) for x in (maps, offset)]
            ext.deform_roi_pool_backward(
                grad, maps, rois, offset, *into, *settings
            )
            return into

        return [forward, backward]

    return [
        Case('roi_align', size, *align(1, 0, True)),
        Case('roi_align, not aligned', size, *align(1, 2, False)),
        Case('roi_align, maximum', size, *align(0, 2, True)),
        Case('roi_pool', size, *pool()),
        Case('deform_roi_pool', size, *deform_pool()),
    ]


def convolutions(device: str) -> list[Case]:
    """Of the third and fourth stage of a ResNet, and of a FPN."""
    cases = []
    for channels, height, width in ((256, 50, 84), (512, 25, 42)):
        maps = torch.randn(1, channels, height, width, device=device)
        weight = torch.randn(channels, channels, 3, 3, device=device) * 0.02
        offset = torch.randn(1, 18, height, width, device=device)
        mask = torch.rand(1, 9, height, width, device=device)
        grad = torch.randn_like(maps)
        tensors = (maps, weight, offset, mask, grad)
        size = f'1 x {channels} x {height} x {width}'
        cases += [
            Case('deform_conv', size, *plain_convolution(*tensors)),
            Case('modulated_deform_conv', size, *modulated(*tensors)),
        ]
    return [*cases, carafe(device), masked_convolution(device)]


def plain_convolution(
    maps: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, grad: Tensor
) -> list[Run]:
    """DCN, whose backward pass is two functions."""
    settings = (3, 3, 1, 1, 1, 1, 1, 1, 1, 1)

    def forward(ext: Any) -> list[Tensor]:
        output, *buffers = torch.zeros_like(maps), *maps.new_empty(2, 0)
        ext.deform_conv_forward(
            maps, weight, offset, output, *buffers, *settings, 1
        )
        return [output]

    def backward(ext: Any) -> list[Tensor]:
        buffers = [maps.new_empty(0), maps.new_empty(0)]
        into = [torch.zeros_like(x) for x in (maps, offset, weight)]
        ext.deform_conv_backward_input(
            *(maps, offset, grad, *into[:2], weight, buffers[0]),
            *(*settings, 1),
        )
        ext.deform_conv_backward_parameters(
            maps, offset, grad, into[2], *buffers, *settings, 1.0, 1
        )
        return into

    return [forward, backward]


def modulated(
    maps: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, grad: Tensor
) -> list[Run]:
    """DCNv2 with a bias."""
    settings = (3, 3, 1, 1, 1, 1, 1, 1, 1, 1, True)
    bias = torch.randn(len(weight), device=maps.device)
    inputs = (maps, weight, bias, maps.new_empty(0), offset, mask)

    def forward(ext: Any) -> list[Tensor]:
        output = torch.zeros_like(maps)
        ext.modulated_deform_conv_forward(
            *inputs, output, maps.new_empty(0), *settings
        )
        return [output]

    def backward(ext: Any) -> list[Tensor]:
        kinds = (maps, weight, bias, offset, mask)
        into = [torch.zeros_like(x) for x in kinds]
        ext.modulated_deform_conv_backward(
            *inputs, maps.new_empty(0), *into, grad, *settings
        )
        return into

    return [forward, backward]


def carafe(device: str) -> Case:
    """The upsampling of FPN_CARAFE."""
    features = torch.randn(1, 256, 25, 42, device=device)
    masks = torch.rand(1, 25, 50, 84, device=device)
    grad = torch.randn(1, 256, 50, 84, device=device)

    def forward(ext: Any) -> list[Tensor]:
        output = torch.zeros_like(grad)
        buffers = [torch.zeros_like(x) for x in (features, output, masks)]
        ext.carafe_forward(features, masks, *buffers, output, 5, 1, 2)
        return [output]

    def backward(ext: Any) -> list[Tensor]:
        # What the forward pass leaves differs, and is used by its own alone.
        kept = torch.zeros_like(features)
        output = torch.zeros_like(grad)
        buffers = [kept, torch.zeros_like(output), torch.zeros_like(masks)]
        ext.carafe_forward(features, masks, *buffers, output, 5, 1, 2)
        kinds = (grad, grad, features, masks, features, masks)
        into = [torch.zeros_like(x) for x in kinds]
        ext.carafe_backward(grad, kept, masks, *into, 5, 1, 2)
        return into[-2:]

    return Case('carafe', '1 x 256 x 25 x 42, twice', forward, backward)


def masked_convolution(device: str) -> Case:
    """The columns of guided anchoring's convolution."""
    image = torch.randn(1, 256, 50, 84, device=device)
    rows, columns = (torch.rand(50, 84) > 0.9).nonzero().to(device).unbind(1)
    rows, columns = rows.contiguous(), columns.contiguous()

    def forward(ext: Any) -> list[Tensor]:
        seen = torch.zeros(2304, len(rows), device=device)
        ext.masked_im2col_forward(image, rows, columns, seen, 3, 3, 1, 1)
        output = torch.zeros_like(image)
        ext.masked_col2im_forward(
            *(seen[:256].contiguous(), rows, columns, output, 50, 84, 256)
        )
        return [seen, output]

    return Case('masked_conv', '1 x 256 x 50 x 84, 10 %', forward)


def losses(device: str) -> list[Case]:
    """Logits of a RetinaNet's image, and attention of a deformable DETR."""
    logits = torch.randn(40000, 80, device=device) - 4
    target = torch.randint(0, 81, (40000,), device=device)
    softmax, positive = logits.softmax(1), target.clamp(max=79)
    nothing = logits.new_empty(0)

    def sigmoid(ext: Any) -> list[Tensor]:
        output = torch.zeros_like(logits)
        ext.sigmoid_focal_loss_forward(
            logits, target, nothing, output, 2.0, 0.25
        )
        return [output]

    def sigmoid_grad(ext: Any) -> list[Tensor]:
        output = torch.zeros_like(logits)
        ext.sigmoid_focal_loss_backward(
            logits, target, nothing, output, 2.0, 0.25
        )
        return [output]

    def softmax_loss(ext: Any) -> list[Tensor]:
        output = torch.zeros_like(logits[:, 0])
        ext.softmax_focal_loss_forward(
            softmax, positive, nothing, output, 2.0, 0.25
        )
        return [output]

    def softmax_grad(ext: Any) -> list[Tensor]:
        output = torch.zeros_like(logits)
        ext.softmax_focal_loss_backward(
            *(softmax, positive, nothing, torch.zeros_like(logits[:, 0])),
            *(output, 2.0, 0.25),
        )
        return [output]

    size = '40000 x 80'
    return [
        Case('sigmoid_focal_loss', size, sigmoid, sigmoid_grad),
        Case('softmax_focal_loss', size, softmax_loss, softmax_grad),
        attention(device),
        normalisation(device),
    ]


def attention(device: str) -> Case:
    """A layer of a deformable DETR's encoder."""
    sides = [(100, 134), (50, 67), (25, 34), (13, 17)]
    shapes = torch.tensor(sides, device=device)
    sizes = shapes.prod(1)
    levels = (shapes, sizes.cumsum(0) - sizes)
    queries = int(sizes.sum())
    value = torch.randn(1, queries, 8, 32, device=device)
    places = torch.rand(1, queries, 8, 4, 4, 2, device=device)
    weights = torch.rand(1, queries, 8, 4, 4, device=device)
    grad = torch.randn(1, queries, 256, device=device)

    def forward(ext: Any) -> list[Tensor]:
        return [
            ext.ms_deform_attn_forward(value, *levels, places, weights, 64)
        ]

    def backward(ext: Any) -> list[Tensor]:
        into = [torch.zeros_like(x) for x in (value, places, weights)]
        ext.ms_deform_attn_backward(
            value, *levels, places, weights, grad, *into, 64
        )
        return into

    return Case('ms_deform_attn', f'{queries} queries', forward, backward)


def normalisation(device: str) -> Case:
    """MMSyncBN of one process."""
    maps = torch.randn(2, 256, 8400, device=device)
    weight, bias, norm = torch.rand(256), torch.rand(256), maps.clone()
    weight, bias = weight.to(device), bias.to(device)

    def forward(ext: Any) -> list[Tensor]:
        mean, var, std, *running = torch.zeros(5, 256, device=device)
        normed, output = torch.zeros_like(maps), torch.zeros_like(maps)
        ext.sync_bn_forward_mean(maps, mean)
        ext.sync_bn_forward_var(maps, mean, var)
        ext.sync_bn_forward_output(
            *(maps, mean, var, weight, bias, *running, normed, std, output),
            *(1e-5, 0.1, 1),
        )
        return [output, *running]

    def backward(ext: Any) -> list[Tensor]:
        into = [torch.zeros_like(x) for x in (weight, bias, maps)]
        ext.sync_bn_backward_param(maps, norm, *into[:2])
        ext.sync_bn_backward_data(
            maps, weight, *into[:2], norm, weight + 1, into[2]
        )
        return into

    return Case('sync_bn', '2 x 256 x 8400', forward, backward)


def all_cases(device: str) -> list[Case]:
    """All operators on seeded inputs on a device."""
    torch.manual_seed(0)
    kinds = (suppression, pooling, convolutions, losses)
    return [case for kind in kinds for case in kind(device)]
