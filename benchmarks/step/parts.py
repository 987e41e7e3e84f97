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
    hashes_at_a_time,
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
        name = next(iter(model.distiller.taps))
        self.levels = [
            x._replace(student=x.student.detach())
            for x in model.distiller.pairs.of(name, self.rows.get(name))
        ]
        losses = model.distiller.distill_losses.values()
        self.lsh = next(
            (x for x in losses if isinstance(x, lshfm_mm.losses.LSHLoss)), None
        )
        self.losses = list(losses)
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
        """Matrix products of the LSH loss: two forward, one back."""
        if self.lsh is None:
            return
        weight, bias = self.lsh.weight, self.lsh.bias
        for level in self.levels:
            size = hashes_at_a_time(level.student)
            with full_float32(level.student.device):
                for w, b in zip(
                    weight.split(size), bias.split(size), strict=True
                ):
                    project(level.teacher, w, b)
                    slopes = project(level.student, w, b)
                    project_back(slopes, w, level.student.shape)

    def loss(self) -> None:
        """The mimicking losses, forward and backward."""
        total = 0
        with self.arm.optimizer.optim_context(self.model):
            for level in self.levels:
                student = level.student.requires_grad_()
                for loss in self.losses:
                    total = total + loss(student, level.teacher)
        total.backward()
