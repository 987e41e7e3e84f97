"""The algorithm of detectors that classify RoIs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import (
    CascadeRoIHead,
    SparseRoIHead,
    StandardRoIHead,
    TridentRoIHead,
)
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..distillers.roi_sampling import pick_rois
from ..errors import ConfigError, check_int
from .feature_mimic import FeatureMimicDistill

BOX_HEAD = re.compile(
    r'roi_head\.(?:bbox_head|bbox_roi_extractor|shared_head)'
    r'(?:\.(?P<stage>\d+))?(?:\.|$)'
)


@MODELS.register_module()
class RoIMimicDistill(FeatureMimicDistill):
    """Mimic features of a two-stage detector's box head.

    The student samples its RoIs as ever; the teacher pools *the same* boxes
    on its own feature pyramid. Its RPN, assigner and NMS never run. In a
    cascade each stage has RoIs of its own: the teacher's stage gets those of
    the student's stage that it is tapped with.

    Args:
        distiller (dict): Config of the distiller.
        max_rois (int, optional): How many RoIs of an image are mimicked at
            most: foreground first, then a draw of the rest. Defaults to all,
            as in the paper.
        seed (int): Seed of that draw, beside the iteration. Defaults to 0.
        kwargs: See :class:`FeatureMimicDistill`.

    Raises:
        ConfigError: If student, teacher and distiller do not fit together.
    """

    def __init__(
        self,
        distiller: Mapping[str, Any],
        max_rois: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if max_rois is not None:
            check_int('max_rois', max_rois)
        super().__init__(distiller=distiller, **kwargs)
        self.max_rois = max_rois
        self.seed = seed
        if self._images.sides:
            raise ConfigError(
                'teacher_size: RoIMimicDistill gives the teacher boxes in '
                "pixels of the student's images; remove it"
            )
        self._record_rois()

    @torch.no_grad()
    def _teacher_maps(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> Sequence[Tensor]:
        """Maps to pool RoIs from."""
        images = self._images(inputs, data_samples)
        with self._execution(images) as images:
            return self._maps.extract(images)

    @torch.no_grad()
    def _teacher_head(
        self, maps: Sequence[Tensor], rois: Tensor | None = None
    ) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = {}
        if not self._stages:
            return rows
        head = self.teacher.roi_head
        with self._execution.on_rois(head.bbox_roi_extractor, maps) as maps:
            context = _context(head, maps)
            for stage, (student_stage, taps) in self._stages.items():
                boxes = rois
                if boxes is None:
                    boxes = self.distiller.records.rois(student_stage)
                if boxes is None:
                    none = maps[0].new_zeros(0).long()
                    rows.update(dict.fromkeys(taps, none))
                    continue
                if rois is None and self.max_rois is not None:
                    picked = self._pick(boxes, self.max_rois, taps)
                    boxes = boxes[picked]
                    rows.update(dict.fromkeys(taps, picked))
                _run_box_head(head, stage, maps, boxes, context)
        return rows

    def _run_student_on(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None,
        rois: Tensor | None,
    ) -> None:
        if rois is None:
            super()._run_student_on(inputs, data_samples, rois)
            return
        maps = self.student.extract_feat(inputs)
        head = self.student.roi_head
        context = _context(head, maps)
        for stage in {stage for stage, _ in self._stages.values()}:
            _run_box_head(head, stage, maps, rois, context)

    def _all_ran(self) -> bool:
        """Without RoIs mmdet has no loss of classes, nor a later stage."""
        records = self.distiller.records
        rois = [records.rois(stage) for stage in records.stages]
        return all(x is not None and len(x) > 0 for x in rois)

    def _pick(self, rois: Tensor, max_rois: int, taps: list[str]) -> Tensor:
        if not len(rois):
            return rois.new_zeros(0).long()
        masks = [self.distiller.weights.foreground(name) for name in taps]
        foreground = next((x for x in masks if x is not None), None)
        if foreground is None:
            raise ConfigError(
                'max_rois: the head of the student does not tell which RoIs '
                'are foreground; remove it, or tap roi_head.bbox_head'
            )
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        seed = (1_000_003 * self.seed + iteration) % 2**63
        return pick_rois(rois, foreground, max_rois, seed)

    def _record_rois(self) -> None:
        records, source = self.distiller.records, 'roi_head.bbox_roi_extractor'
        extractor = self.student.roi_head.bbox_roi_extractor
        if isinstance(extractor, nn.ModuleList):
            for stage in range(len(extractor)):
                records.record_rois(self.student, stage, f'{source}.{stage}')
        else:
            records.record_rois(self.student, None, source)

    def _check_models(self, student: BaseModel, teacher: BaseModel) -> None:
        models = {'architecture': student, 'teacher': teacher}
        for field, model in models.items():
            if not has_rois(model):
                head = getattr(model, 'roi_head', None)
                raise ConfigError(
                    f'{field}: RoIMimicDistill needs a two-stage detector '
                    f'whose boxes are RoIs of its neck, but got '
                    f'{type(model).__name__} with the RoI head '
                    f'{type(head).__name__}; use FeatureMimicDistill'
                )

    def _check_head_sources(self, sources: Mapping[str, str]) -> None:
        """Find which stage of the teacher gets which RoIs, for which taps."""
        self._stages: dict[int | None, tuple[int | None, list[str]]] = {}
        records = self.distiller.records
        for name, source in sources.items():
            tap = records.tap_of(name)
            student = source if tap is None else tap.student
            layers = [BOX_HEAD.match(x) for x in (student, source)]
            if None in layers:
                raise ConfigError(
                    f'taps: the teacher does not run {source!r} on the '
                    f"student's RoIs of {student!r}; tap its backbone, neck "
                    f'or roi_head.bbox_head'
                )
            ours, theirs = map(_stage, layers)
            stage, taps = self._stages.setdefault(theirs, (ours, []))
            if stage != ours:
                raise ConfigError(
                    f"taps.{name}: the teacher's {source!r} would run on the "
                    f'RoIs of two stages of the student; tap it once'
                )
            if name in records.taps:
                taps.append(name)
                records.on_rois.add(name)


def has_rois(model: nn.Module) -> bool:
    """Whether a model pools its boxes from its features, whatever they are.

    The queries of Sparse R-CNN and its kin are not RoIs: they carry a state
    of their own. TridentNet in training has three maps per image, and one in
    evaluation.
    """
    head = getattr(model, 'roi_head', None)
    pools = isinstance(head, StandardRoIHead | CascadeRoIHead)
    return pools and not isinstance(head, SparseRoIHead | TridentRoIHead)


def _context(head: Any, maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the heads of HTC and SCNet add to the features of each RoI."""
    context = {}
    if getattr(head, 'with_semantic', False):
        context['semantic_feat'] = head.semantic_head(maps)[1]
    if getattr(head, 'with_glbctx', False):
        context['glbctx_feat'] = head.glbctx_head(maps)[1]
    return context


def _run_box_head(
    head: Any,
    stage: int | None,
    maps: Sequence[Tensor],
    rois: Tensor,
    context: Mapping[str, Tensor],
) -> None:
    """Run a box head, of a cascade one stage, on RoIs."""
    if stage is None:
        head._bbox_forward(maps, rois)
    else:
        head._bbox_forward(stage, maps, rois, **context)


def _stage(layer: re.Match[str] | None) -> int | None:
    """The stage of a cascade that a layer belongs to."""
    return int(layer['stage']) if layer and layer['stage'] else None
