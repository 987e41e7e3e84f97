"""What is tapped of a teacher and needs no RoIs: it runs, and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models import DetectionTransformer
from mmengine.structures import BaseDataElement
from mmrazor.models.task_modules.recorder import RecorderManager
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .execution import skipped, unneeded_layers
from .loading import FrozenTeacher

FEATURE_PARTS = ('backbone', 'neck')
ENCODER_PARTS = ('encoder', 'positional_encoding')  # of mmdet's DETRs


class TeacherMaps:
    """Runs backbone and neck of a teacher, and of its head what is tapped.

    Args:
        guest (FrozenTeacher): The teacher.
        manager (RecorderManager): Its recorders.

    Attributes:
        head_sources (dict[str, str]): Name of a recorder beyond the neck ->
            the layer that it records.
    """

    def __init__(self, guest: FrozenTeacher, manager: RecorderManager) -> None:
        self._guest = guest
        self._recorders: Mapping[str, Any] = manager.recorders
        sources = {k: x.source for k, x in self._recorders.items()}
        parts = {x.split('.')[0] for x in sources.values()}
        self._only_backbone = parts == {'backbone'}
        self._only_encoder = isinstance(
            guest.model, DetectionTransformer
        ) and parts <= {*FEATURE_PARTS, *ENCODER_PARTS}
        self.head_sources = {
            name: source
            for name, source in sources.items()
            if source.split('.')[0] not in FEATURE_PARTS
        }

    def run(
        self, images: Tensor, data_samples: list[BaseDataElement] | None
    ) -> None:
        """Run all of the teacher that its recorders depend on.

        The images, (N, C, H, W), are as the teacher wants them.
        """
        if not self.head_sources:
            self.extract(images)
            return
        if self._only_encoder:
            teacher: Any = self._guest.model
            inputs, _ = teacher.pre_transformer(
                teacher.extract_feat(images), data_samples
            )
            teacher.forward_encoder(**inputs)
            return
        if self._guest.unneeded is None:
            self._guest.unneeded = self._unneeded(images, data_samples)
        with skipped(self._guest.unneeded):
            self._guest.model(images, data_samples, mode='tensor')

    def extract(self, images: Tensor) -> Sequence[Tensor]:
        """Give the maps of the neck, or of the backbone if only it is tapped.

        The images, (N, C, H, W), are as the teacher wants them.
        """
        teacher: Any = self._guest.model
        if self._only_backbone:
            return teacher.backbone(images)
        return teacher.extract_feat(images)

    def _unneeded(
        self, images: Tensor, data_samples: list[BaseDataElement] | None
    ) -> list[nn.Conv2d]:
        """Layers of the teacher's head that no tap depends on."""
        recorders = self._recorders.values()

        def run() -> list[Tensor]:
            self._guest.model(images, data_samples, mode='tensor')
            leaves = tree_leaves([x.data_buffer for x in recorders])
            for recorder in recorders:
                recorder.reset_data_buffer()
            return [x for x in leaves if isinstance(x, Tensor)]

        head = (
            layer
            for name, layer in self._guest.model.named_modules()
            if name.split('.')[0] not in FEATURE_PARTS
        )
        return unneeded_layers(head, run)
