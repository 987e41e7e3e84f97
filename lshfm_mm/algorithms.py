"""The algorithms: the order of the steps of one training batch.

1. The teacher computes what is tapped of its maps, and nothing else. It goes
   first: what its layers take of memory is free when the student needs it.
2. The student computes its task losses; its features are recorded.
3. The teacher's box head, if tapped, runs on the student's RoIs.
4. The distiller compares the records.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.roi_heads import (
    CascadeRoIHead,
    SparseRoIHead,
    StandardRoIHead,
    TridentRoIHead,
)
from mmengine import dist
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.task_modules.recorder import RecorderManager
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .audit import FEW, Audit, weights_from_files
from .distillers import LABELS, LOGITS, LSHFMDistiller
from .errors import ConfigError
from .execution import (
    TeacherExecution,
    skipped,
    unneeded_layers,
)
from .images import ImageConverter
from .samples import pick_rois
from .taps import check_arguments, nearest
from .teacher import build_teacher, few, inherit_weights, model_config

FEATURE_PARTS = ('backbone', 'neck')
BOX_HEAD = re.compile(
    r'roi_head\.(?:bbox_head|bbox_roi_extractor|shared_head)'
    r'(?:\.(?P<stage>\d+))?(?:\.|$)'
)
ROIS = '_rois_'  # of recorders of the student's boxes, beside the stage


@MODELS.register_module()
class FeatureMimicDistill(SingleTeacherDistill):
    """Mimic features of any model that needs no RoIs for them.

    The teacher gets the images in its own normalisation and channel order.
    It runs its backbone and neck, and its head (``mode='tensor'``: no loss,
    no post-processing) only where a tap lies there.

    Args:
        architecture (dict | BaseModel): The student: a model config, or
            ``dict(cfg_path=...)``.
        teacher (dict | BaseModel): The teacher, likewise.
        distiller (dict): Config of the distiller.
        teacher_ckpt (str, optional): File or URL of the teacher's weights.
        teacher_strict (bool): Whether missing or misshapen keys in it are an
            error. Defaults to True.
        inherit (bool): Whether all of the student but its backbone starts
            from the teacher's weights, where name and shape agree. Defaults
            to False, as in the paper.
        teacher_precision (str, optional): 'float32', 'bfloat16' or
            'float16': what the teacher computes in, under autocast. Defaults
            to the student's.
        teacher_channels_last (bool): Whether the teacher's convolutions run
            in channels-last memory format. Defaults to False.
        teacher_compile (bool): Whether the teacher's backbone is compiled by
            ``torch.compile``. Defaults to False.
        student_trainable (bool | list[str]): The parts of the student that
            are trained, such as ``['neck']``; the rest is frozen and in eval
            mode. Defaults to True, all of it.
        audit (bool): Whether the first batch is audited before the first
            update, see :class:`Audit`. Defaults to True.
        kwargs: Arguments of MMRazor's ``SingleTeacherDistill``. Where
            ``calculate_student_loss`` is False and nothing else needs labels,
            the images need none.

    Raises:
        ConfigError: If student, teacher and distiller do not fit together.
    """

    def __init__(
        self,
        architecture: Mapping[str, Any] | BaseModel,
        teacher: Mapping[str, Any] | BaseModel,
        distiller: Mapping[str, Any],
        teacher_ckpt: str | None = None,
        teacher_strict: bool = True,
        inherit: bool = False,
        teacher_precision: str | None = None,
        teacher_channels_last: bool = False,
        teacher_compile: bool = False,
        student_trainable: bool | Sequence[str] = True,
        audit: bool = True,
        **kwargs: Any,
    ) -> None:
        check_arguments('model', type(self), kwargs)
        for field, value in (
            ('teacher_strict', teacher_strict),
            ('inherit', inherit),
            ('audit', audit),
            ('teacher_channels_last', teacher_channels_last),
            ('teacher_compile', teacher_compile),
        ):
            if not isinstance(value, bool):
                raise ConfigError(
                    f'{field}: must be True or False, but got {value!r}'
                )
        self.audit = Audit() if audit else None
        self._execution = TeacherExecution(
            teacher_precision, teacher_channels_last, teacher_compile
        )
        if kwargs.pop('teacher_trainable', False) is not False:
            raise ConfigError(
                'teacher_trainable: must be False here; remove it, or use '
                "MMRazor's SingleTeacherDistill"
            )
        if not isinstance(architecture, BaseModel):
            cfg = model_config('architecture', architecture)
            # Where mmpretrain keeps it, and without the type that the
            # student knows.
            preprocessor = kwargs.pop('data_preprocessor', None)
            if preprocessor is not None:
                cfg.setdefault('data_preprocessor', preprocessor)
            architecture = MODELS.build(cfg)
        kind = MODELS.get(distiller.get('type', ''))
        if not (isinstance(kind, type) and issubclass(kind, LSHFMDistiller)):
            raise ConfigError(
                f'distiller.type: must be LSHFMDistiller, but got '
                f'{distiller.get("type")!r}; it takes the same arguments'
            )
        # The guest must be there before MMRazor asks for ``self.teacher``;
        # what MMRazor then registers as a submodule is taken out again.
        guest = build_teacher(teacher, teacher_ckpt, teacher_strict)
        object.__setattr__(self, '_guest', guest)
        self._check_models(architecture, guest.model)
        super().__init__(
            architecture=architecture,
            teacher=guest.model,
            distiller={
                '_scope_': 'mmrazor',
                **distiller,
                'student_recorders': {
                    **(distiller.get('student_recorders') or {}),
                    **self._own_recorders(architecture),
                },
            },
            **kwargs,
        )
        del self._modules['teacher']
        preprocessors = self.data_preprocessor, self.teacher.data_preprocessor
        self._images = ImageConverter(*preprocessors)
        self.inherit = inherit
        if student_trainable is True and not self.calculate_student_loss:
            raise ConfigError(
                'student_trainable: is True, but with calculate_student_loss='
                'False nothing trains what lies behind the taps; name what '
                "is trained, as in ['backbone', 'neck']"
            )
        self._trained = check_parts(
            'student_trainable', student_trainable, self.student
        )
        for name, parameter in self.student.named_parameters():
            if not is_under(name, self._trained):
                parameter.requires_grad = False
        self._execution.prepare(self.teacher)
        recorders = self.distiller.teacher_recorders.recorders
        self._head_sources = {
            name: recorder.source
            for name, recorder in recorders.items()
            if recorder.source.split('.')[0] not in FEATURE_PARTS
        }
        self._only_backbone = bool(recorders) and all(
            recorder.source.split('.')[0] == 'backbone'
            for recorder in recorders.values()
        )
        self._check_head_sources()

    @property
    def teacher(self) -> BaseModel:
        """The teacher: no submodule, always frozen and in eval mode."""
        return self._guest.model

    def loss(
        self,
        batch_inputs: Tensor,
        data_samples: list[BaseDataElement] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch_inputs (Tensor): Preprocessed images, (N, C, H, W).
            data_samples (list): Their annotations.

        Returns:
            dict[str, Tensor]: The student's losses under ``student.``, the
            mimicking losses under ``distill.``.
        """
        if self.distillation_stopped:
            losses = self._run_student(batch_inputs, data_samples)
            self.distiller.empty_recorders()
            return self._in_step(losses)
        audit = self.audit
        if audit is None or not audit.is_open or not torch.is_grad_enabled():
            return self._mimic(batch_inputs, data_samples)
        with audit.watching(self.distiller, self.student, self.teacher):
            losses = self._mimic(batch_inputs, data_samples)
        audit.report(losses, self._guest.origin, self.student)
        return losses

    def _mimic(
        self,
        batch_inputs: Tensor,
        data_samples: list[BaseDataElement] | None,
    ) -> dict[str, Tensor]:
        recorders = self.distiller.teacher_recorders
        with recorders:
            maps = self._teacher_maps(batch_inputs, data_samples)
        losses = self._run_student(batch_inputs, data_samples)
        with _continued(recorders):
            rows = self._teacher_head(maps)
        del maps
        all_ran = self._all_ran()
        mimic_losses = self.distiller.compute_distill_losses(
            data_samples, tuple(batch_inputs.shape[-2:]), rows
        )
        losses.update(add_prefix(mimic_losses, 'distill'))
        return losses if all_ran else self._in_step(losses)

    def init_weights(self) -> None:
        """Initialise the student, then let it inherit."""
        first_time = not self.is_init
        super().init_weights()
        if not first_time:
            return
        if self.audit is not None:
            self.audit.student = weights_from_files(self.student)
        if self.inherit:
            taken = inherit_weights(self.student, self.teacher)
            if self.audit is not None:
                self.audit.student.append(
                    f'inherit: {len(taken)} of '
                    f'{len(self.student.state_dict())} tensors'
                )

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        """Load a checkpoint; one with (almost) nothing for it is wrong."""
        own = {
            f'{prefix}architecture.{key}': value.shape
            for key, value in self.student.state_dict().items()
        }
        misshapen = [
            key
            for key, shape in own.items()
            if key in state_dict and state_dict[key].shape != shape
        ]
        found = sum(key in state_dict for key in own) - len(misshapen)
        if state_dict and found < FEW * len(own):
            raise ConfigError(
                f'load_from: of its {len(state_dict)} keys {found} fit the '
                f"student's {len(own)} ({next(iter(own))}, ...), which would "
                f"start from scratch; a plain model's file goes into the "
                f'init_cfg of the student: architecture=dict(init_cfg=dict('
                f"type='Pretrained', checkpoint='...'))"
            )
        if self.audit is not None and state_dict:
            self.audit.student.append(
                f'checkpoint: {found} of {len(own)} keys of the student'
                + (f', {len(misshapen)} misshapen: ' if misshapen else '')
                + few(misshapen)
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> 'FeatureMimicDistill':
        """Set the mode of all but what is frozen, which stays in eval."""
        super().train(mode)
        self.teacher.eval()
        for name, module in self.student.named_modules():
            if not is_under(name, self._trained):
                module.training = module.training and any(
                    is_under(part, [name]) for part in self._trained
                )
        return self

    def record_teacher(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None,
        rois: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Run what is tapped of the teacher, under its recorders.

        Args:
            inputs (Tensor): Preprocessed images of the student, (N, C, H, W).
            data_samples (list): Their annotations.
            rois (Tensor, optional): Boxes to pool, (R, 5). Defaults to those
                of the recorded student.

        Returns:
            dict[str, Tensor]: Name of a tap -> the student's samples there
            that the teacher has seen; all, where it has no entry.
        """
        with self.distiller.teacher_recorders:
            maps = self._teacher_maps(inputs, data_samples)
            return self._teacher_head(maps, rois)

    @torch.no_grad()
    def record_student(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None,
        rois: Tensor | None = None,
    ) -> None:
        """Run the student under its recorders, and leave it as it is.

        Args:
            inputs (Tensor): Preprocessed images, (N, C, H, W).
            data_samples (list): Their annotations.
            rois (Tensor, optional): Boxes to pool, (R, 5). Defaults to those
                that the student finds.
        """
        training = [x for x in self.student.modules() if x.training]
        self.student.eval()
        try:
            with self.distiller.student_recorders:
                self._run_student_on(inputs, data_samples, rois)
        finally:
            for module in training:
                module.training = True

    def _run_student(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> dict[str, Tensor]:
        recorders = self.distiller.student_recorders
        needs_labels = any(
            name.startswith((LABELS, ROIS)) for name in recorders.recorders
        )
        with recorders:
            if not (self.calculate_student_loss or needs_labels):
                self.student(inputs, data_samples, mode='tensor')
                return {}
            losses = self.student(inputs, data_samples, mode='loss')
        if not self.calculate_student_loss:
            return {}
        return add_prefix(losses, 'student')

    def _run_student_on(
        self,
        inputs: Tensor,
        data_samples: list[BaseDataElement] | None,
        rois: Tensor | None,
    ) -> None:
        """Run the student without its losses, on RoIs if it pools some."""
        self.student(inputs, data_samples, mode='tensor')

    @torch.no_grad()
    def _teacher_maps(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> Sequence[Tensor]:
        """Run what is tapped of the teacher and needs no RoIs."""
        images = self._images(inputs, data_samples)
        with self._execution(images) as images:
            return self._run_maps(images, data_samples)

    @torch.no_grad()
    def _teacher_head(
        self, maps: Sequence[Tensor], rois: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run what is tapped of the teacher on RoIs, pooled from its maps."""
        return {}

    def _all_ran(self) -> bool:
        """Whether all layers that are trained had something to do.

        Without RoIs mmdet has no loss of classes.
        """
        return not hasattr(self.student, 'roi_head')

    def _in_step(self, losses: dict[str, Any]) -> dict[str, Any]:
        """Give layers that did not run a gradient, of zeros.

        The other ranks wait for it: DDP knows no rank that leaves one out.
        """
        if dist.is_distributed():
            trained = [x.sum() for x in self.parameters() if x.requires_grad]
            nothing = torch.stack(trained).sum() * 0
            name = next(x for x in losses if 'loss' in x)
            value = losses[name]
            losses[name] = (
                value + nothing
                if isinstance(value, Tensor)
                else [*value, nothing]
            )
        return losses

    def _run_maps(
        self, images: Tensor, data_samples: list[BaseDataElement] | None
    ) -> Sequence[Tensor]:
        if not self._head_sources:
            return self._extract(images)
        if self._guest.unneeded is None:
            self._guest.unneeded = self._unneeded(images, data_samples)
        with skipped(self._guest.unneeded):
            self.teacher(images, data_samples, mode='tensor')
        return ()

    def _unneeded(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> list[nn.Conv2d]:
        """Layers of the teacher's head that no tap depends on."""
        recorders = self.distiller.teacher_recorders.recorders.values()

        def run() -> list[Tensor]:
            self.teacher(inputs, data_samples, mode='tensor')
            leaves = tree_leaves([x.data_buffer for x in recorders])
            for recorder in recorders:
                recorder.reset_data_buffer()
            return [x for x in leaves if isinstance(x, Tensor)]

        head = (
            layer
            for name, layer in self.teacher.named_modules()
            if name.split('.')[0] not in FEATURE_PARTS
        )
        return unneeded_layers(head, run)

    def _extract(self, inputs: Tensor) -> Sequence[Tensor]:
        """Features of the neck, or of the backbone if only that is tapped."""
        if self._only_backbone:
            return self.teacher.backbone(inputs)
        return self.teacher.extract_feat(inputs)

    def _own_recorders(self, student: BaseModel) -> dict[str, dict]:
        """Recorders on the student that the algorithm itself needs."""
        return {}

    def _check_models(self, student: BaseModel, teacher: BaseModel) -> None:
        """Raise unless the algorithm serves these models."""

    def _check_head_sources(self) -> None:
        if self._head_sources and hasattr(self.teacher, 'roi_head'):
            raise ConfigError(
                'type: FeatureMimicDistill cannot tap the head of a '
                'two-stage detector; use RoIMimicDistill'
            )

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> nn.Module:
        """Move and cast the guest with its host.

        Its memory format is its own: that is ``teacher_channels_last``.
        """

        def in_its_format(x: Tensor) -> Tensor:
            new = fn(x)
            if new.stride() == x.stride():
                return new
            kept = torch.empty_like(x, dtype=new.dtype, device=new.device)
            return kept.copy_(new)

        if self._guest.owned:
            self.teacher._apply(in_its_format, recurse)
        return super()._apply(fn, recurse)

    def _set_device(self, device: torch.device) -> None:
        if self._guest.owned:
            self.teacher._set_device(device)
        super()._set_device(device)


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
        if max_rois is not None and (
            type(max_rois) is not int or max_rois < 1
        ):
            raise ConfigError(
                f'max_rois: must be an int >= 1 or None, but got {max_rois!r}'
            )
        super().__init__(distiller=distiller, **kwargs)
        self.max_rois = max_rois
        self.seed = seed

    def _run_maps(
        self, images: Tensor, data_samples: list[BaseDataElement] | None
    ) -> Sequence[Tensor]:
        return self._extract(images)

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
                    boxes = self._student_rois(student_stage)
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
        recorders = self.distiller.student_recorders.recorders
        calls = [x for name, x in recorders.items() if name.startswith(ROIS)]
        return all(x.data_buffer and len(x.data_buffer[-1][1]) for x in calls)

    def _student_rois(self, stage: int | None) -> Tensor | None:
        """The student's RoIs, (R, 5); None if a stage before left no box."""
        recorder = self.distiller.student_recorders.get_recorder(
            f'{ROIS}{stage}'
        )
        # The last call: samplers may have run the head before.
        calls = recorder.data_buffer
        return calls[-1][1] if calls else None

    def _pick(self, rois: Tensor, max_rois: int, taps: list[str]) -> Tensor:
        if not len(rois):
            return rois.new_zeros(0).long()
        found = [self.distiller.foreground(name) for name in taps]
        foreground = next((x for x in found if x is not None), None)
        if foreground is None:
            raise ConfigError(
                'max_rois: the head of the student does not tell which RoIs '
                'are foreground; remove it, or tap roi_head.bbox_head'
            )
        iteration = MessageHub.get_current_instance().get_info('iter', 0)
        seed = (1_000_003 * self.seed + iteration) % 2**63
        return pick_rois(rois, foreground, max_rois, seed)

    def _own_recorders(self, student: BaseModel) -> dict[str, dict]:
        extractor = student.roi_head.bbox_roi_extractor
        source = 'roi_head.bbox_roi_extractor'
        if not isinstance(extractor, nn.ModuleList):
            return {f'{ROIS}None': dict(type='ModuleInputs', source=source)}
        return {
            f'{ROIS}{i}': dict(type='ModuleInputs', source=f'{source}.{i}')
            for i in range(len(extractor))
        }

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

    def _check_head_sources(self) -> None:
        """Find which stage of the teacher gets which RoIs, for which taps."""
        self._stages: dict[int | None, tuple[int | None, list[str]]] = {}
        for name, source in self._head_sources.items():
            tap = self.distiller.taps.get(name.removeprefix(LOGITS))
            student = source if tap is None else tap.student
            found = [BOX_HEAD.match(x) for x in (student, source)]
            if None in found:
                raise ConfigError(
                    f'taps: the teacher does not run {source!r} on the '
                    f"student's RoIs of {student!r}; tap its backbone, neck "
                    f'or roi_head.bbox_head'
                )
            ours, theirs = map(_stage, found)
            stage, taps = self._stages.setdefault(theirs, (ours, []))
            if stage != ours:
                raise ConfigError(
                    f"taps.{name}: the teacher's {source!r} would run on the "
                    f'RoIs of two stages of the student; tap it once'
                )
            if tap is not None and name in self.distiller.taps:
                taps.append(name)
                self.distiller.roi_taps.add(name)


def check_parts(
    field: str, parts: bool | Sequence[str], model: nn.Module
) -> list[str]:
    """Names of parts of a model; True stands for all of it."""
    if parts is True:
        return ['']
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise ConfigError(
            f"{field}: must be True or a list of parts such as ['neck'], but "
            f'got {parts!r}'
        )
    layers = dict(model.named_modules())
    for part in parts:
        if part not in layers:
            raise ConfigError(
                f'{field}: the student has no {part!r}{nearest(part, layers)}'
            )
    return list(parts)


def is_under(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter or module is a part of a model, or lies in one."""
    return any(not x or f'{name}.'.startswith(f'{x}.') for x in parts)


def has_rois(model: nn.Module) -> bool:
    """Whether a model pools its boxes from its features, whatever they are.

    The queries of Sparse R-CNN and its kin are not RoIs: they carry a state
    of their own. TridentNet in training has three maps per image, and one in
    evaluation.
    """
    head = getattr(model, 'roi_head', None)
    return isinstance(
        head, StandardRoIHead | CascadeRoIHead
    ) and not isinstance(head, SparseRoIHead | TridentRoIHead)


@contextmanager
def _continued(manager: RecorderManager) -> Iterator[None]:
    """Record on, beside what is recorded already."""
    recorders = manager.recorders.values()
    before = [list(recorder.data_buffer) for recorder in recorders]
    with manager:
        for recorder, records in zip(recorders, before, strict=True):
            recorder.data_buffer.extend(records)
        yield


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


def _stage(found: re.Match[str] | None) -> int | None:
    """The stage of a cascade that a layer belongs to."""
    return int(found['stage']) if found and found['stage'] else None
