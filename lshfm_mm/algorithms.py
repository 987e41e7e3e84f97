"""The algorithms: the order of the steps of one training batch.

1. The student computes its task losses; its features are recorded.
2. The teacher computes what is tapped, and nothing else.
3. The distiller compares the records.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS
from torch import Tensor, nn

from .errors import ConfigError
from .teacher import Guest, build_teacher, inherit_weights, model_config

FEATURE_PARTS = ('backbone', 'neck')
BOX_HEAD_PARTS = ('bbox_head', 'bbox_roi_extractor', 'shared_head')
ROIS = '_rois'  # the recorder of the student's boxes


@MODELS.register_module()
class FeatureMimicDistill(SingleTeacherDistill):
    """Mimic features of any model that needs no RoIs for them.

    The teacher runs its backbone and neck, and its head (``mode='tensor'``:
    no loss, no post-processing) only where a tap lies there.

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
        kwargs: Arguments of MMRazor's ``SingleTeacherDistill``.

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
        **kwargs: Any,
    ) -> None:
        for field, only in (
            ('teacher_trainable', False),
            ('student_trainable', True),
        ):
            if kwargs.pop(field, only) is not only:
                raise ConfigError(
                    f'{field}: must be {only} here; remove it, or use '
                    f"MMRazor's SingleTeacherDistill"
                )
        if not isinstance(architecture, BaseModel):
            architecture = MODELS.build(
                model_config('architecture', architecture)
            )
        # The guest must be there before MMRazor asks for ``self.teacher``;
        # what MMRazor then registers as a submodule is taken out again.
        guest = Guest(build_teacher(teacher, teacher_ckpt, teacher_strict))
        object.__setattr__(self, '_guest', guest)
        self._check_models(architecture, guest.model)
        super().__init__(
            architecture=architecture,
            teacher=guest.model,
            distiller={'_scope_': 'mmrazor', **distiller},
            **kwargs,
        )
        del self._modules['teacher']
        self.inherit = inherit
        self._head_sources = [
            recorder.source
            for recorder in self.distiller.teacher_recorders.recorders.values()
            if recorder.source.split('.')[0] not in FEATURE_PARTS
        ]
        if self._head_sources:
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
        losses = self._run_student(batch_inputs, data_samples)
        if not self.distillation_stopped:
            self._run_teacher(batch_inputs, data_samples)
            mimic_losses = self.distiller.compute_distill_losses()
            losses.update(add_prefix(mimic_losses, 'distill'))
        return losses

    def init_weights(self) -> None:
        """Initialise the student, then let it inherit."""
        first_time = not self.is_init
        super().init_weights()
        if self.inherit and first_time:
            inherit_weights(self.student, self.teacher)

    def train(self, mode: bool = True) -> 'FeatureMimicDistill':
        """Set the mode of all but the teacher, which stays in eval."""
        super().train(mode)
        self.teacher.eval()
        return self

    def _run_student(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> dict[str, Tensor]:
        with self.distiller.student_recorders:
            losses = self.student(inputs, data_samples, mode='loss')
        if not self.calculate_student_loss:
            return {}
        return add_prefix(losses, 'student')

    def _run_teacher(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> None:
        with torch.no_grad(), self.distiller.teacher_recorders:
            self._teacher_features(inputs, data_samples)

    def _teacher_features(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> None:
        """Run the parts of the teacher that are tapped."""
        if self._head_sources:
            self.teacher(inputs, data_samples, mode='tensor')
        else:
            self.teacher.extract_feat(inputs)

    def _check_models(self, student: BaseModel, teacher: BaseModel) -> None:
        for name in ('mean', 'std', '_channel_conversion'):
            values = [
                torch.as_tensor(getattr(model.data_preprocessor, name, 0))
                for model in (student, teacher)
            ]
            if not torch.equal(*values):
                raise ConfigError(
                    f'teacher.data_preprocessor: its {name.strip("_")} is '
                    f'{values[1].flatten().tolist()}, but the student has '
                    f'{values[0].flatten().tolist()}, and both get the same '
                    f'images; take a teacher that was trained with the same'
                )

    def _check_head_sources(self) -> None:
        if hasattr(self.teacher, 'roi_head'):
            raise ConfigError(
                'type: FeatureMimicDistill cannot tap the head of a '
                'two-stage detector; use RoIMimicDistill'
            )

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> nn.Module:
        """Move and cast the guest with its host."""
        if self._guest.owned:
            self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _set_device(self, device: torch.device) -> None:
        if self._guest.owned:
            self.teacher._set_device(device)
        super()._set_device(device)


@MODELS.register_module()
class RoIMimicDistill(FeatureMimicDistill):
    """Mimic features of a two-stage detector's box head.

    The student samples its RoIs as ever; the teacher pools *the same* boxes
    on its own feature pyramid. Its RPN, assigner and NMS never run.

    Args:
        distiller (dict): Config of the distiller.
        kwargs: See :class:`FeatureMimicDistill`.
    """

    def __init__(self, distiller: Mapping[str, Any], **kwargs: Any) -> None:
        rois = dict(type='ModuleInputs', source='roi_head.bbox_roi_extractor')
        recorders = distiller.get('student_recorders') or {}
        super().__init__(
            distiller={
                **distiller,
                'student_recorders': {**recorders, ROIS: rois},
            },
            **kwargs,
        )

    def _teacher_features(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> None:
        features = self.teacher.extract_feat(inputs)
        if self._head_sources:
            recorder = self.distiller.student_recorders.get_recorder(ROIS)
            rois = recorder.get_record_data(record_idx=0, data_idx=1)
            self.teacher.roi_head._bbox_forward(features, rois)

    def _check_models(self, student: BaseModel, teacher: BaseModel) -> None:
        super()._check_models(student, teacher)
        models = {'architecture': student, 'teacher': teacher}
        for field, model in models.items():
            head = getattr(model, 'roi_head', None)
            if not isinstance(head, StandardRoIHead):
                raise ConfigError(
                    f'{field}: RoIMimicDistill needs a two-stage detector '
                    f'with a StandardRoIHead, but got {type(model).__name__}; '
                    f'use FeatureMimicDistill'
                )

    def _check_head_sources(self) -> None:
        for source in self._head_sources:
            parts = source.split('.')
            if parts[0] != 'roi_head' or parts[1] not in BOX_HEAD_PARTS:
                raise ConfigError(
                    f'taps: the teacher does not run {source!r} on the '
                    f"student's RoIs; tap its backbone, neck or "
                    f'roi_head.bbox_head'
                )
