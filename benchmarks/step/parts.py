"""The parts of an arm's step, to be timed alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from arms import Arm
from torch import nn

import lshfm_mm
from lshfm_mm.losses.hashing import (
    full_float32,
    in_blocks,
    project,
    project_back,
)


class Parts:
    """What an arm of ours does in a step, each by a method."""

    def __init__(self, arm: Arm, batch: dict[str, Any]) -> None:
        self.arm, self.model = arm, arm.model
        self.teacher = arm.model.teachers['']
        model = arm.model
        data = model.data_preprocessor(batch, True)
        inputs, samples = data['inputs'], data['data_samples']
        recorders = model.distiller.student_recorders
        self.inputs = inputs
        with arm.optimizer.optim_context(model):
            with recorders:
                model.student(inputs, samples, mode='loss')
            self.rows = model.record_teacher(inputs, samples)
        self.features = self.pyramid()
        distiller = model.distiller
        self.pairs = [  # a loss and a level that it compares
            (loss, level._replace(student=level.student.detach()))
            for tap in distiller.taps
            for key, loss in distiller.distill_losses.items()
            if key.startswith(f'loss_{tap}_')
            for level in distiller.pairs.of(tap, self.rows.get(tap))
        ]
        # Of several taps the head runs for those on RoIs.
        taps = sorted(
            distiller.taps, key=distiller.records.on_rois.__contains__
        )
        name = taps[-1]
        self.rois = None
        if name in model.distiller.records.on_rois:
            records = model.distiller.records
            rois = records.rois(records.pools[0])
            self.rois = rois[self.rows[name]] if name in self.rows else rois
        model.distiller.records.empty()

    @contextmanager
    def as_in_a_step(self) -> Iterator[torch.Tensor]:
        """Precision and memory format of the teacher in a step."""
        with self.arm.optimizer.optim_context(self.model), torch.no_grad():
            with self.teacher.execution(self.inputs) as images:
                yield images

    def pyramid(self) -> Any:
        """The teacher's backbone and neck."""
        with self.as_in_a_step() as images:
            return self.model.teacher.extract_feat(images)

    def head(self) -> None:
        """What is tapped of the teacher's head."""
        if self.rois is not None:
            with self.arm.optimizer.optim_context(self.model):
                self.model._head_of('', self.features, self.rois)
        elif hasattr(self.model.teacher, 'head'):  # a classifier
            with self.as_in_a_step():
                self.model.teacher.head(self.features)
        elif self.teacher.head_sources:
            with self.as_in_a_step():
                towers = self.model.teacher.bbox_head.cls_convs
                each = isinstance(towers[0], nn.ModuleList)  # level its own
                for index, feature in enumerate(self.features):
                    for layer in towers[index] if each else towers:
                        feature = layer(feature)

    def products(self) -> None:
        """Matrix products of the LSH losses: two forward, one back."""
        for loss, level in self.pairs:
            if not isinstance(loss, lshfm_mm.losses.LSHLoss):
                continue
            features = level.student, level.teacher
            with full_float32(level.student.device):
                for s, t, w, b in in_blocks(features, loss.weight, loss.bias):
                    project(t, w, b)
                    project_back(project(s, w, b), w, s.shape)

    def loss(self) -> None:
        """The mimicking losses, forward and backward."""
        total = 0
        with self.arm.optimizer.optim_context(self.model):
            for loss, level in self.pairs:
                student = level.student.requires_grad_()
                total = total + loss(student, level.teacher)
        total.backward()
