"""The algorithms: the order of the steps of one training batch.

1. Each teacher computes what is tapped of its maps, and nothing else. It goes
   first: what its layers take of memory is free when the student needs it.
2. The student computes its task losses; its features are recorded.
3. A teacher's box head, if tapped, runs on the student's RoIs.
4. The distiller compares the records.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmrazor.models.algorithms import SingleTeacherDistill
from mmrazor.models.utils import add_prefix
from mmrazor.registry import MODELS
from torch import Tensor

from ..distillers.lshfm_distiller import LSHFMDistiller
from ..distillers.records import continued
from ..distillers.taps import find_class
from ..errors import ConfigError, check_arguments
from ..teachers.frozen import head_sources
from ..teachers.host import Maps, TeacherHost
from ..teachers.inherit import parent_of
from ..teachers.loading import build_teacher
from ..teachers.settings import read_teachers
from .student_proxy import STUDENT, StudentProxy, build_student
from .student_weights import count_fitting, explained, name_student, start
from .trained_parts import check_parts, in_step, is_under


@MODELS.register_module()
class FeatureMimicDistill(StudentProxy, TeacherHost, SingleTeacherDistill):
    """Mimic features of any models that need no RoIs for them.

    A teacher gets the images in its own normalisation and channel order.
    It runs its backbone and neck, and its head (``mode='tensor'``: no loss,
    no post-processing) only where a tap lies there.

    Args:
        architecture (dict | BaseModel): The student: a model config, or
            ``dict(cfg_path=...)``.
        distiller (dict): Config of the distiller.
        teacher (dict | BaseModel, optional): The teacher, likewise.
        teacher_ckpt (str, optional): File or URL of the teacher's weights.
        teacher_strict (bool): Whether missing or misshapen keys in it are an
            error. Defaults to True.
        inherit (bool | str): Whether all of the student but its backbone
            starts from the teacher's weights, where name and shape agree; of
            several teachers the name of one. Defaults to False, as in the
            paper.
        teacher_size (int | tuple, optional): To what the teacher's images
            are resized: height and width; or an int, such as the patch of a
            ViT, to the nearest multiple of which both go. Defaults to the
            size that the student gets.
        teacher_precision (str, optional): 'float32', 'bfloat16' or
            'float16': what the teacher computes in, under autocast. Defaults
            to the student's.
        teacher_channels_last (bool): Whether the teacher's convolutions run
            in channels-last memory format. Defaults to False.
        teacher_compile (bool): Whether the teacher's backbone is compiled by
            ``torch.compile``. Defaults to False.
        teachers (dict, optional): Several teachers in place of the one above:
            name -> dict with ``model``, ``ckpt``, ``strict``, ``size``,
            ``precision``, ``channels_last`` and ``compile``, each as it is
            for the one.
            Layers of a teacher ``a`` are named as in ``'a:neck'``.
        student_trainable (bool | list[str]): The parts of the student that
            are trained, such as ``['neck']``; the rest is frozen and in eval
            mode. Defaults to True, all of it.
        kwargs: Arguments of MMRazor's ``SingleTeacherDistill``. Where
            ``calculate_student_loss`` is False and nothing else needs labels,
            the images need none.

    Attributes:
        student_origins (list[str]): Where the student's weights come from.
        student_random, student_faults (list[str]): Weights that nothing gave,
            and files that gave (almost) nothing.

    Raises:
        ConfigError: If student, teacher and distiller do not fit together.
    """

    def __init__(
        self,
        architecture: Mapping[str, Any] | BaseModel,
        distiller: Mapping[str, Any],
        teacher: Mapping[str, Any] | BaseModel | None = None,
        teacher_ckpt: str | None = None,
        teacher_strict: bool = True,
        inherit: bool | str = False,
        teacher_size: int | Sequence[int] | None = None,
        teacher_precision: str | None = None,
        teacher_channels_last: bool = False,
        teacher_compile: bool = False,
        teachers: Mapping[str, Any] | None = None,
        student_trainable: bool | Sequence[str] = True,
        **kwargs: Any,
    ) -> None:
        check_arguments('model', type(self), kwargs, architecture)
        if kwargs.pop('teacher_trainable', False) is not False:
            raise ConfigError(
                'teacher_trainable: must be False here; remove it, or use '
                "MMRazor's SingleTeacherDistill"
            )
        settings = read_teachers(
            dict(
                teacher=teacher,
                teacher_ckpt=teacher_ckpt,
                teacher_strict=teacher_strict,
                teacher_size=teacher_size,
                teacher_precision=teacher_precision,
                teacher_channels_last=teacher_channels_last,
                teacher_compile=teacher_compile,
                teachers=teachers,
            )
        )
        student = build_student(architecture, kwargs)
        _check_distiller(distiller)
        # Guests must be there before MMRazor asks for ``self.teacher``; what
        # MMRazor then registers as a submodule is taken out again.
        self._invite({k: build_teacher(x) for k, x in settings.items()})
        parent_of(inherit, self.teachers)
        self._check_models(student)
        super().__init__(
            architecture=student,
            teacher=self.teacher,
            distiller={'_scope_': 'mmrazor', **distiller},
            **kwargs,
        )
        del self._modules['teacher']
        recorders = self.distiller.teacher_recorders.recorders
        for guest in self.teachers.values():
            guest.prepare(student, self.data_preprocessor, recorders)
        self.inherit = inherit
        self.student_origins: list[str] = []
        self.student_random: list[str] = []
        self.student_faults: list[str] = []
        self._freeze(student_trainable)
        self._check_head_sources()
        self._runs_head = bool(
            head_sources(self.distiller.student_recorders.recorders)
        )

    def _freeze(self, trainable: bool | Sequence[str]) -> None:
        """Leave gradients to the parts of the student that are trained."""
        if trainable is True and not self.calculate_student_loss:
            raise ConfigError(
                'student_trainable: is True, but with calculate_student_loss='
                'False nothing trains what lies behind the taps; name what '
                "is trained, as in ['backbone', 'neck']"
            )
        self._trained = check_parts(
            'student_trainable', trainable, self.student
        )
        for name, parameter in self.student.named_parameters():
            if not is_under(name, self._trained):
                parameter.requires_grad = False

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
            self.distiller.leave_nothing()
            return in_step(self, losses)
        recorders = self.distiller.teacher_recorders
        with recorders:
            maps = self._teacher_maps(batch_inputs, data_samples)
        losses = self._run_student(batch_inputs, data_samples)
        with continued(recorders):
            rows = self._teacher_head(maps)
        del maps
        all_ran = self._all_ran()
        mimic_losses = self.distiller.compute_distill_losses(
            data_samples, tuple(batch_inputs.shape[-2:]), rows
        )
        losses.update(add_prefix(mimic_losses, 'distill'))
        return losses if all_ran else in_step(self, losses)

    def init_weights(self) -> None:
        """Initialise the student, then let it inherit.

        Raises:
            ConfigError: If the teacher, or a file, has nothing for it.
        """
        first_time = not self.is_init
        with explained(self.student):
            super().init_weights()
        if not first_time:
            return
        self.student_origins, self.student_faults, self.student_random = start(
            self.student, parent_of(self.inherit, self.teachers)
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        """Load a checkpoint, or a plain file of the student.

        One with (almost) nothing for it is wrong.
        """
        if state_dict:
            name_student(state_dict, prefix + STUDENT, self.student)
            line, given = count_fitting(
                state_dict, prefix + STUDENT, self.student
            )
            self.student_origins.append(line)
            self.student_random = sorted({*self.student_random} - given)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> 'FeatureMimicDistill':
        """Set the mode of all but what is frozen, which stays in eval."""
        super().train(mode)
        for teacher in self.teachers.values():
            teacher.eval()
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
        """Run what is tapped of the teachers, under their recorders.

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

        Arguments as in :meth:`record_teacher`; RoIs default to its own.
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
        with self.distiller.student_recorders:
            needs_loss = self.distiller.records.need_loss
            if not (self.calculate_student_loss or needs_loss):
                if self._runs_head:
                    self.student(inputs, data_samples, mode='tensor')
                else:
                    self.student.extract_feat(inputs)
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

    def _teacher_maps(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> Maps:
        """Run what is tapped of the teachers and needs no RoIs."""
        for teacher in self.teachers.values():
            teacher.run(inputs, data_samples)
        return {}

    @torch.no_grad()
    def _teacher_head(
        self, maps: Maps, rois: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Run what is tapped of the teachers on RoIs of their maps."""
        return {}

    def _all_ran(self) -> bool:
        """Whether all layers that are trained had something to do.

        Without RoIs mmdet has no loss of classes.
        """
        return not hasattr(self.student, 'roi_head')

    def _check_models(self, student: BaseModel) -> None:
        """Raise unless the algorithm serves student and teachers."""

    def _check_head_sources(self) -> None:
        """Raise unless what is tapped beyond the teachers' necks can run."""
        for teacher in self.teachers.values():
            if teacher.head_sources and hasattr(teacher.model, 'roi_head'):
                raise ConfigError(
                    'type: FeatureMimicDistill cannot tap the head of a '
                    'two-stage detector; use RoIMimicDistill'
                )


def _check_distiller(distiller: Mapping[str, Any]) -> None:
    kind = find_class(distiller.get('type'))
    if not (isinstance(kind, type) and issubclass(kind, LSHFMDistiller)):
        raise ConfigError(
            f'distiller.type: must be LSHFMDistiller, but got '
            f'{distiller.get("type")!r}; it takes the same arguments'
        )
