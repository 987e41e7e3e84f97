"""What there is to mimic in a model, found by a pass over a blank image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models import (
    DeformableDETR,
    DetectionTransformer,
    SingleStageDetector,
)
from mmengine.config import Config
from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..algorithms.roi_mimic import has_rois
from ..distillers.taps import layers_of, width_of
from ..errors import ConfigError
from ..teachers.loading import unmask
from ..utils.configs import model_of
from ..utils.rng import forked_rng

PROBE = 512  # side of the blank image in pixels
# Of one for a classifier that takes images of one size alone, as an MLP does.
PROBES = (PROBE, 224, 384, 448, 256, 192, 32)


class Layer(NamedTuple):
    """A layer that is the same thing in every model, by its name."""

    name: str
    module: nn.Module
    shapes: Sequence[tuple[int, ...]] = ()  # of its input, or a neck's outputs

    @property
    def width(self) -> int | None:
        """Channels of its input, if they are one number."""
        return width_of(self.module, 'input')

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Heights and widths of its maps, in locations."""
        return [shape[2:] for shape in self.shapes]

    @property
    def strides(self) -> list[int]:
        """Strides of its maps, in pixels."""
        return [PROBE // width for _, width in self.sizes]


class View(NamedTuple):
    """What there is to mimic in a model; None where there is no such."""

    model: BaseModel
    # Of each stage of a RoI head: the class layer, the last of several FCs.
    rois: list[tuple[Layer, Layer | None]]
    dense: Layer | None
    neck: Layer | None
    pooled: Layer | None
    one_label: bool | None  # to an image; not of another head's
    is_dense: bool  # a detector of one stage

    @property
    def kind(self) -> str:
        """The name of the model, for messages."""
        return type(self.model).__name__

    @property
    def memory(self) -> Layer | None:
        """The encoder of a DETR, with the shapes of its levels as maps."""
        if self.neck is None or not isinstance(
            self.model, DetectionTransformer
        ):
            return None
        shapes = self.neck.shapes
        if not isinstance(self.model, DeformableDETR):
            shapes = shapes[-1:]
        return Layer('encoder', self.model.encoder, shapes)

    @property
    def class_layers(self) -> list[Layer]:
        """All layers that give class scores."""
        others = filter(None, (self.dense, self.pooled))
        return [*(layer for layer, _ in self.rois), *others]


def build_model(field: str, config: Config) -> BaseModel:
    """Build the model of a config, in eval mode; no weights are loaded."""
    with forked_rng():
        model = MODELS.build(model_of(field, config))
    model.eval()  # gives None where a model overrides train() so, as LAD's
    unmask(model)
    return model


@torch.no_grad()
def inspect_config(field: str, config: Config) -> View:
    """Find what there is to mimic in a model, by a pass over a blank image.

    Args:
        field (str): Which argument names the config, for messages.
        config (Config): Of a detector or classifier.

    Raises:
        ConfigError: If the model does not run on such an image.
    """
    model = build_model(field, config)
    is_dense = isinstance(model, SingleStageDetector)
    is_classifier = not hasattr(model, 'bbox_head') and (
        getattr(model, 'head', None) is not None
    )
    calls: list[tuple[str, nn.Module, Any, Any]] = []
    with forked_rng():
        hooks = [
            module.register_forward_hook(
                lambda layer, args, kwargs, given, name=name: calls.append(
                    (name, layer, [*args, *kwargs.values()], given)
                ),
                with_kwargs=True,
            )
            for name, module in model.named_modules()
            if name == 'neck' or isinstance(module, nn.Linear | nn.Conv2d)
        ]
        errors = {}
        for side in PROBES if is_classifier else (PROBE,):
            image = next(model.parameters()).new_zeros(1, 3, side, side)
            calls.clear()
            try:
                if is_dense or is_classifier:
                    result = model(image, None, mode='tensor')
                else:
                    result = model.extract_feat(image)
                break
            except (RuntimeError, AssertionError) as error:
                errors[side] = error
        for hook in hooks:
            hook.remove()
    if side in errors:  # the last of them, too
        side = PROBES[1] if is_classifier else PROBE
        reason = str(errors[side]).strip().splitlines()[-1:]
        raise ConfigError(
            f'{field}: {type(model).__name__} does not run on a blank image '
            f'of {side} x {side} {reason}; write its config by hand, as '
            f'configs/examples/your_detector.py'
        ) from errors[side]
    return View(
        model,
        _stages(model),
        _source(model, calls, _maps(result)) if is_dense else None,
        _neck(calls) if side == PROBE else None,  # its strides are known
        _source(model, calls, [result]) if is_classifier else None,
        _has_one_label(model.head) if is_classifier else None,
        is_dense,
    )


def _has_one_label(head: nn.Module) -> bool | None:
    """Whether images have one label each; None where a head does not tell."""
    kinds = {x.__name__ for x in type(head).__mro__}
    if 'ClsHead' in kinds:
        return True
    return False if 'MultiLabelClsHead' in kinds else None


def _maps(result: Any) -> list[Tensor]:
    """The class scores of a dense head, the first that it gives."""
    while isinstance(result, list | tuple) and result:
        if all(isinstance(part, Tensor) for part in result):
            return list(result)
        result = result[0]
    return []


def _source(
    model: nn.Module, calls: list[Any], outputs: list[Any]
) -> Layer | None:
    """The one layer, or list of a layer each, that made all of the outputs."""
    made = {id(call[3]): call for call in reversed(calls)}  # the innermost
    makers = [made[id(output)] for output in outputs if id(output) in made]
    if not makers or len(makers) != len(outputs):
        return None
    shapes = [tuple(call[2][0].shape) for call in makers]
    layers = [call[1] for call in makers]
    if len({*layers}) == 1:
        return Layer(makers[0][0], layers[0], shapes)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and layers_of(module) == layers:
            return Layer(name, module, shapes)
    return None


def _neck(calls: list[Any]) -> Layer | None:
    for name, module, _, output in calls:
        if name == 'neck':
            maps = output if isinstance(output, list | tuple) else [output]
            if all(isinstance(m, Tensor) and m.dim() == 4 for m in maps):
                return Layer(name, module, [tuple(m.shape) for m in maps])
    return None


def _stages(model: BaseModel) -> list[tuple[Layer, Layer | None]]:
    if not has_rois(model):
        return []
    root, heads = 'roi_head.bbox_head', model.roi_head.bbox_head
    named = {root: heads}
    if isinstance(heads, nn.ModuleList):
        named = {f'{root}.{i}': head for i, head in enumerate(heads)}
    stages = []
    for name, head in named.items():
        layer = getattr(head, 'fc_cls', None)
        if not isinstance(layer, nn.Linear):
            return []
        fcs: Sequence[nn.Module] = getattr(head, 'shared_fcs', ())
        fc = None
        if len(fcs) > 1:
            fc = Layer(f'{name}.shared_fcs.{len(fcs) - 1}', fcs[-1])
        stages.append((Layer(f'{name}.fc_cls', layer), fc))
    return stages
