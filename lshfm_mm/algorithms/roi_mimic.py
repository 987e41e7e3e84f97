"""The algorithm of detectors that classify RoIs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import (
    CascadeRoIHead,
    SCNetRoIHead,
    SparseRoIHead,
    StandardRoIHead,
)
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..distillers.records import Pool
from ..distillers.roi_sampling import pick_rois
from ..errors import ConfigError, check_int
from ..teachers.host import Maps
from .feature_mimic import FeatureMimicDistill

ROI_LAYER = re.compile(
    r'roi_head\.(?:(?P<kind>bbox|mask)_(?:head|roi_extractor)|shared_head)'
    r'(?:\.(?P<stage>\d+))?(?:\.|$)'
)
# Where a teacher pools -> where the student pools those RoIs, and taps.
Pools = dict[Pool, tuple[Pool, list[str]]]


@MODELS.register_module()
class RoIMimicDistill(FeatureMimicDistill):
    """Mimic features of a two-stage detector's box and mask heads.

    The student samples its RoIs as ever; the teacher pools *the same* boxes
    on its own feature pyramid. Its RPN, assigner and NMS never run. In a
    cascade each stage has RoIs of its own: the teacher's stage gets those of
    the student's stage that it is tapped with. A mask head gets the student's
    positive RoIs, by its own extractor. Of several teachers one must be such
    a detector; the others may be of any kind.

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
        self._record_rois()

    def _teacher_maps(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> Maps:
        maps = {}
        for name, teacher in self.teachers.items():
            if name in self._pools:
                maps[name] = teacher.extract(inputs, data_samples)
            else:
                teacher.run(inputs, data_samples)
        return maps

    def _teacher_head(
        self, maps: Maps, rois: Tensor | None = None
    ) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = {}
        for name, levels in maps.items():
            rows |= self._head_of(name, levels, rois)
        return rows

    @torch.no_grad()
    def _head_of(
        self, name: str, maps: Sequence[Tensor], rois: Tensor | None
    ) -> dict[str, Tensor]:
        """Run the head of one teacher; arguments as in the methods above."""
        rows: dict[str, Tensor] = {}
        teacher = self.teachers[name]
        head, execution = teacher.model.roi_head, teacher.execution
        with execution.on_rois(head, maps) as maps:
            context = _context(head, maps)
            for pool, (students, taps) in self._pools[name].items():
                boxes = rois
                if boxes is None:
                    boxes = self.distiller.records.rois(students)
                if boxes is None:
                    none = maps[0].new_zeros(0).long()
                    rows.update(dict.fromkeys(taps, none))
                    continue
                if rois is None and self.max_rois is not None:
                    picked = self._pick(boxes, self.max_rois, pool, taps)
                    boxes = boxes[picked]
                    rows.update(dict.fromkeys(taps, picked))
                _run_head(head, pool, maps, _of_images(boxes, maps), context)
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
        recorders = self.distiller.student_recorders.recorders.values()
        if any(x.source.startswith('rpn_head') for x in recorders):
            self.student.rpn_head.predict(maps, data_samples)
        head = self.student.roi_head
        context = _context(head, maps)
        pools = [x for y in self._pools.values() for x in y.values()]
        for pool in {pool for pool, _ in pools}:
            _run_head(head, pool, maps, rois, context)

    def _all_ran(self) -> bool:
        """Without RoIs mmdet has no loss of classes, nor a later stage."""
        records = self.distiller.records
        rois = [records.rois(pool) for pool in records.pools]
        return all(x is not None and len(x) > 0 for x in rois)

    def _pick(
        self, rois: Tensor, max_rois: int, pool: Pool, taps: list[str]
    ) -> Tensor:
        if not len(rois):
            return rois.new_zeros(0).long()
        masks = [self.distiller.weights.foreground(name) for name in taps]
        foreground = next((x for x in masks if x is not None), None)
        if pool.kind == 'mask':
            foreground = rois.new_ones(len(rois), dtype=torch.bool)
        if foreground is None:
            raise ConfigError(
                'max_rois: the head of the student does not tell which RoIs '
                'are foreground; remove it, or tap roi_head.bbox_head'
            )
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        seed = (1_000_003 * self.seed + iteration) % 2**63
        return pick_rois(rois, foreground, max_rois, seed)

    def _record_rois(self) -> None:
        extractor = self.student.roi_head.bbox_roi_extractor
        is_cascade = isinstance(extractor, nn.ModuleList)
        stages = range(len(extractor)) if is_cascade else [None]
        pools = [Pool('bbox', x) for x in stages]
        tapped = [x for y in self._pools.values() for x in y.values()]
        pools += [pool for pool, _ in tapped]
        for pool in dict.fromkeys(pools):
            self.distiller.records.record_rois(self.student, pool)

    def _check_models(self, student: BaseModel) -> None:
        _check_rois('architecture', student)
        teachers = self.teachers.values()
        if not any(has_rois(x.model) for x in teachers):
            for teacher in teachers:
                _check_rois(teacher.settings.field('model'), teacher.model)

    def _check_head_sources(self) -> None:
        """Find which head of a teacher gets which RoIs, for which taps."""
        self._pools: dict[str, Pools] = {}
        for name, teacher in self.teachers.items():
            sources = teacher.head_sources
            if sources and hasattr(teacher.model, 'roi_head'):
                _check_rois(teacher.settings.field('model'), teacher.model)
                if teacher.settings.size is not None:
                    raise ConfigError(
                        f'{teacher.settings.field("size")}: '
                        f'RoIMimicDistill gives the teacher boxes in pixels '
                        f"of the student's images; remove it"
                    )
                self._pools[name] = self._pools_of(teacher.model, sources)

    def _pools_of(
        self, teacher: nn.Module, sources: Mapping[str, str]
    ) -> Pools:
        pools: Pools = {}
        records = self.distiller.records
        for name, source in sources.items():
            tap = records.tap_of(name)
            student = source if tap is None else tap.student
            layers = [ROI_LAYER.match(x) for x in (student, source)]
            ours, theirs = map(_pool, layers)
            if None in layers or ours.kind != theirs.kind:
                raise ConfigError(
                    f'taps: the teacher does not run {source!r} on the '
                    f"student's RoIs of {student!r}; tap its backbone, neck, "
                    f'roi_head.bbox_head or roi_head.mask_head'
                )
            if ours.kind == 'mask':
                _check_masks(name, 'student', self.student, student)
                _check_masks(name, 'teacher', teacher, source)
            pool, taps = pools.setdefault(theirs, (ours, []))
            if pool != ours:
                raise ConfigError(
                    f"taps.{name}: the teacher's {source!r} would run on the "
                    f'RoIs of two stages of the student; tap it once'
                )
            if name in records.taps:
                taps.append(name)
                records.on_rois.add(name)
        return pools


def has_rois(model: nn.Module) -> bool:
    """Whether a model pools its boxes from its features, whatever they are.

    The queries of Sparse R-CNN and its kin are not RoIs: they carry a state
    of their own.
    """
    head = getattr(model, 'roi_head', None)
    pools = isinstance(head, StandardRoIHead | CascadeRoIHead)
    return pools and not isinstance(head, SparseRoIHead)


def _check_masks(name: str, owner: str, model: Any, layer: str) -> None:
    """Raise unless a tap in a mask head runs once, on positive RoIs."""
    head = model.roi_head
    shares = owner == 'student' and head.share_roi_extractor
    if shares or isinstance(head, SCNetRoIHead):
        raise ConfigError(
            f'taps.{name}: the mask head of the {owner}, in a '
            f'{type(head).__name__}, pools no RoIs of its own; tap '
            f'roi_head.bbox_head'
        )
    last = layer.endswith(('.conv_logits', '.upsample'))
    if getattr(head, 'mask_info_flow', False) and not last:
        raise ConfigError(
            f'taps.{name}: the {owner} runs {layer!r} again for later '
            f'stages; tap conv_logits of this mask head'
        )


def _check_rois(field: str, model: nn.Module) -> None:
    if not has_rois(model):
        head = getattr(model, 'roi_head', None)
        raise ConfigError(
            f'{field}: RoIMimicDistill needs a two-stage detector whose boxes '
            f'are RoIs of its neck, but got {type(model).__name__} with the '
            f'RoI head {type(head).__name__}; use FeatureMimicDistill'
        )


def _context(head: Any, maps: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the heads of HTC and SCNet add to the features of each RoI."""
    context = {}
    if getattr(head, 'with_semantic', False):
        context['semantic_feat'] = head.semantic_head(maps)[1]
    if getattr(head, 'with_glbctx', False):
        context['glbctx_feat'] = head.glbctx_head(maps)[1]
    return context


def _of_images(rois: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """RoIs by the images of maps; TridentNet has each in several branches."""
    images = rois[:, :1] % len(maps[0])
    return torch.cat([images, rois[:, 1:]], dim=1)


def _run_head(
    head: Any,
    pool: Pool,
    maps: Sequence[Tensor],
    rois: Tensor,
    context: Mapping[str, Tensor],
) -> None:
    """Run a box or mask head, of a cascade one stage, on RoIs."""
    run = head._mask_forward if pool.kind == 'mask' else head._bbox_forward
    if pool.stage is None:
        run(maps, rois)
    else:
        run(pool.stage, maps, rois, **context)


def _pool(layer: re.Match[str] | None) -> Pool:
    """Where the RoIs of a layer are pooled."""
    kind, stage = layer.group('kind', 'stage') if layer else (None, None)
    return Pool(kind or 'bbox', int(stage) if stage else None)
