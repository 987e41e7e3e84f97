"""A teacher: frozen, out of all module trees, run as far as it is tapped."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models import DetectionTransformer
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import ConfigError
from .execution import TeacherExecution, skipped, unneeded_layers
from .images import ImageConverter, patch_of_teacher
from .settings import split_source

FEATURE_PARTS = ('backbone', 'neck')
ENCODER_PARTS = ('encoder', 'positional_encoding')  # of mmdet's DETRs


def head_sources(recorders: Mapping[str, Any]) -> dict[str, str]:
    """Name of a recorder beyond the neck -> the layer that it records."""
    return _beyond_neck({k: x.source for k, x in recorders.items()})


def _beyond_neck(sources: Mapping[str, str]) -> dict[str, str]:
    return {
        name: source
        for name, source in sources.items()
        if source.split('.')[0] not in FEATURE_PARTS
    }


class FrozenTeacher:
    """A teacher, its images, how it computes and what of it runs.

    It belongs to nobody's module tree. Copies of a host (EMA) share it.

    Args:
        model (BaseModel): Its network; it is frozen and set to eval mode.
        origin (str): Where its weights come from, in words.
        execution (TeacherExecution): How it computes.

    Attributes:
        owned (bool): Whether it moves with its host.
        head_sources (dict[str, str]): Name of a recorder beyond the neck ->
            the layer that it records.
    """

    def __init__(
        self, model: BaseModel, origin: str, execution: TeacherExecution
    ) -> None:
        self.model = model.requires_grad_(False)
        self.model.eval()
        self.data_preprocessor = model.data_preprocessor
        self.origin = origin
        self.execution = execution
        self.settings = execution.settings
        self.owned = True
        # Layers that need not run; None where they have not been looked for.
        self._unneeded: list[nn.Conv2d] | None = None

    def prepare(
        self,
        student: nn.Module,
        preprocessor: nn.Module,
        recorders: Mapping[str, Any],
    ) -> None:
        """Settle what runs on which images, once recorders are attached.

        Args:
            student (nn.Module): The student.
            preprocessor (nn.Module): The student's data preprocessor.
            recorders (dict): Those on all teachers, by name.

        Raises:
            ConfigError: If it cannot get such images, or compute so, or is
                one of several and has no recorder.
        """
        name = self.settings.name
        self.images = ImageConverter(
            preprocessor,
            self.data_preprocessor,
            self.settings,
            patch_of_teacher(
                student, self.model, self.settings.size is not None
            ),
        )
        self.execution.prepare(self.model)
        split = {k: split_source(x.source) for k, x in recorders.items()}
        sources = {
            k: layer for k, (whose, layer) in split.items() if whose == name
        }
        self._recorders = [recorders[key] for key in sources]
        if name and not sources:
            raise ConfigError(
                f'teachers.{name}: no tap is of it; add one, such as dict('
                f"student='neck', teacher='{name}:neck'), or remove it"
            )
        parts = {x.split('.')[0] for x in sources.values()}
        self._only_backbone = parts == {'backbone'}
        self._only_encoder = isinstance(
            self.model, DetectionTransformer
        ) and parts <= {*FEATURE_PARTS, *ENCODER_PARTS}
        self.head_sources = _beyond_neck(sources)

    def __deepcopy__(self, memo: dict[int, Any]) -> 'FrozenTeacher':
        """Share all: a copy of the host needs no second teacher."""
        shared = copy.copy(self)
        shared.owned = False
        return shared

    def eval(self) -> None:
        """Undo what others do to a teacher in training and validation.

        MMRazor's loop of validation gives it the student's preprocessor.
        """
        self.model.eval()
        self.model.data_preprocessor = self.data_preprocessor

    @torch.no_grad()
    def run(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> None:
        """Run all that its recorders depend on.

        Args:
            inputs (Tensor): Preprocessed images of the student, (N, C, H, W).
            data_samples (list): Their annotations.
        """
        if not self.head_sources:
            self.extract(inputs, data_samples)
            return
        images = self.images(inputs, data_samples)
        with self.execution(images) as images:
            if self._only_encoder:
                maps = self.model.extract_feat(images)
                memory, _ = self.model.pre_transformer(maps, data_samples)
                self.model.forward_encoder(**memory)
                return
            if self._unneeded is None:
                self._unneeded = self._find_unneeded(images, data_samples)
            with skipped(self._unneeded):
                self.model(images, data_samples, mode='tensor')

    @torch.no_grad()
    def extract(
        self, inputs: Tensor, data_samples: list[BaseDataElement] | None
    ) -> Sequence[Tensor]:
        """Give the maps of the neck, or of the backbone if only it is tapped.

        Arguments as in :meth:`run`.
        """
        model: Any = self.model
        images = self.images(inputs, data_samples)
        with self.execution(images) as images:
            if self._only_backbone:
                return model.backbone(images)
            return model.extract_feat(images)

    def _find_unneeded(
        self, images: Tensor, data_samples: list[BaseDataElement] | None
    ) -> list[nn.Conv2d]:
        """Layers of the head that no tap depends on."""
        recorders = self._recorders

        def run() -> list[Tensor]:
            self.model(images, data_samples, mode='tensor')
            leaves = tree_leaves([x.data_buffer for x in recorders])
            for recorder in recorders:
                recorder.reset_data_buffer()
            return [x for x in leaves if isinstance(x, Tensor)]

        head = (
            layer
            for name, layer in self.model.named_modules()
            if name.split('.')[0] not in FEATURE_PARTS
        )
        return unneeded_layers(head, run, self.settings.label)
