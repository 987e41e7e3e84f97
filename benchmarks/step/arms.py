"""A model with its optimiser, and what is measured of it but time."""

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT
from mmengine.runner.checkpoint import save_checkpoint
from recipes import configs, teacher_of
from torch import nn

from lshfm_mm.export import export_student
from lshfm_mm.utils.configs import model_config

RATE = 0.0  # of learning: every round sees the same weights


class Arm:
    """A model with its optimiser, ready to take steps.

    Args:
        config (dict): Of the model.
        options (Namespace): Of the command line.
        weights (dict, optional): Of the student, one and the same.
    """

    def __init__(
        self, config: dict[str, Any], options: Any, weights: Any = None
    ) -> None:
        torch.manual_seed(0)
        self.model = ROOT.build(model_config('model', config))
        self.model.init_weights()
        self.model.to(options.device).train()
        wrapper = 'AmpOptimWrapper' if options.amp else 'OptimWrapper'
        sgd = dict(type='SGD', lr=RATE, momentum=0.9)
        self.optimizer = build_optim_wrapper(
            self.model, dict(type=wrapper, optimizer=sgd)
        )
        student = getattr(self.model, 'student', self.model)
        if options.compile:
            student.backbone.compile()
        if weights is not None:
            student.load_state_dict(weights)
        self.rois: dict[str, tuple[int, float]] = {}
        models = {'student': student}
        if student is not self.model:
            models['teacher'] = self.model.teacher
        for owner, model in models.items():
            if hasattr(model, 'roi_head'):
                model.roi_head.bbox_roi_extractor.register_forward_hook(
                    lambda _, inputs, output, owner=owner: self.rois.update(
                        {owner: number_and_side(inputs[1])}
                    )
                )

    def step(self, batch: dict[str, Any], seed: int) -> None:
        """One training step, from the raw batch on."""
        torch.manual_seed(seed)
        self.model.train_step(batch, self.optimizer)

    def resident(self) -> int:
        """Bytes of weights, buffers and the optimiser's state."""
        models = {self.model, getattr(self.model, 'teacher', self.model)}
        found = {x for m in models for x in (*m.parameters(), *m.buffers())}
        for state in self.optimizer.optimizer.state.values():
            found |= {x for x in state.values() if isinstance(x, torch.Tensor)}
        return sum(x.nbytes for x in found)


def work_as_if_trained(model: nn.Module) -> None:
    """Give random weights that all arms have equally much to do with.

    An RPN proposes boxes half as long as their anchors, of all sizes: with
    random weights one proposes small boxes and another large ones, and large
    ones take longer to pool. A classifier answers class 0, as all labels do:
    what is mimicked are images that the teacher gets right.
    """
    if hasattr(model, 'rpn_head'):
        rpn = model.rpn_head
        nn.init.zeros_(rpn.rpn_cls.weight)
        nn.init.zeros_(rpn.rpn_reg.weight)
        deltas = rpn.rpn_reg.bias.detach().view(-1, 4)
        deltas[:, 2:] = math.log(0.5)
    if hasattr(model, 'head'):
        nn.init.zeros_(model.head.fc.weight)
        model.head.fc.bias.detach()[0] = 1


def number_and_side(rois: torch.Tensor) -> tuple[int, float]:
    """How many boxes there are, and the mean root of their areas, pixels."""
    sizes = (rois[:, 3:] - rois[:, 1:3]).clamp(min=0)
    return len(rois), float(sizes.prod(1).sqrt().mean())


def checkpoint_sizes(arm: Arm, folder: Path) -> dict[str, int]:
    """Bytes of a training checkpoint and of the exported student."""
    path, out = folder / 'training.pth', folder / 'student.pth'
    save_checkpoint(
        dict(
            meta={},
            state_dict=arm.model.state_dict(),
            optimizer=arm.optimizer.state_dict(),
        ),
        str(path),
    )
    sizes = {'checkpoint': path.stat().st_size}
    if hasattr(arm.model, 'teachers'):
        export_student(str(path), str(out), force=True)
        sizes['student'] = out.stat().st_size
    elif not hasattr(arm.model, 'student'):
        state = {'state_dict': arm.model.state_dict()}
        save_checkpoint(dict(meta={}, **state), str(out))
        sizes['student'] = out.stat().st_size
    return sizes


def build_arms(model: str, options: Any, folder: Path) -> dict[str, Arm]:
    """All arms of a model, by name, whose students have the same weights."""
    teacher_ckpt = str(folder / f'{model}.pth')
    torch.manual_seed(1)
    teacher = ROOT.build(
        model_config('teacher', dict(cfg_path=teacher_of(model)))
    )
    work_as_if_trained(teacher)
    torch.save({'state_dict': teacher.state_dict()}, teacher_ckpt)
    arms: dict[str, Arm] = {}
    weights = None
    for name, config in configs(model, teacher_ckpt, options).items():
        arms[name] = Arm(config, options, weights)
        if weights is None:
            work_as_if_trained(arms[name].model)
            weights = arms[name].model.state_dict()
    return arms
