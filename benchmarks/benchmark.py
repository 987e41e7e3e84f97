"""Time one training step: the plain student, this package and MMRazor.

All arms run in one process, one after another in every round, with the same
images and seeds and one student with random weights; printed are medians over
the rounds, and of ratios the median of those within a round. The floor
of an arm is the plain student's step, what it needs of the teacher, timed
alone, and the matrix products of its LSH loss, timed alone. Needs no data and
no checkpoint.
"""

import argparse
import ctypes
import gc
import importlib
import json
import math
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import torch
import torch.nn.functional as F
from machine import commit, memory, processor
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT
from mmengine.runner.checkpoint import save_checkpoint
from torch import nn
from tqdm import tqdm

import lshfm_mm
from lshfm_mm import cli
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.losses import lsh_loss
from lshfm_mm.losses.hashing import (
    full_float32,
    hashes_at_a_time,
    project,
    project_back,
)
from lshfm_mm.pairing import write_config
from lshfm_mm.utils.configs import model_config

REPO = Path(__file__).resolve().parent.parent
RATE = 0.0  # of learning: every round sees the same weights
LOSS_SHAPE = (20_000, 256, 4096)  # N, D, K
PKD = dict(type='PKDLoss', loss_weight=6)
CWD = dict(type='ChannelWiseDivergence', loss_weight=160)
TWO_STAGE = 'configs/distill/faster_rcnn_lshfm.py'
# Dense detectors: teacher and student, which make_config pairs.
DENSE = {
    'retinanet': (
        'mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    ),
    'gfl': (
        'mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    ),
    'rtmdet': (
        'mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py',
        'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    ),
}
DETECTORS = ('faster_rcnn', *DENSE)


def configs(
    detector: str, teacher_ckpt: str, channels_last: bool
) -> dict[str, dict[str, Any]]:
    """Model configs of the arms, by name; the plain student goes first."""
    if detector in DENSE:
        arms = dense_arms(detector, teacher_ckpt)
    else:
        arms = two_stage_arms(teacher_ckpt)
    for arm in arms.values():
        if 'architecture' in arm:
            arm.architecture.backbone.init_cfg = None
        if arm.get('type') in ('FeatureMimicDistill', 'RoIMimicDistill'):
            arm.teacher_channels_last = channels_last
    return {'student alone': arms[next(iter(arms))].architecture, **arms}


def dense_arms(detector: str, teacher_ckpt: str) -> dict[str, Any]:
    """What make_config writes, and MMRazor's losses on the same maps."""

    def written(**options: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            out = f'{folder}/distil.py'
            pair = DENSE[detector]
            write_config(*pair, out, teacher_ckpt=teacher_ckpt, **options)
            return Config.fromfile(out).model

    recommended, maps = written(), written(loss='cwd')
    found = {
        'recommended': recommended,
        'FPN, CWD': maps,
        'class tower, LSHL2, K = 4096': written(tap='dense', loss='lshl2'),
        'class tower, LSHL2, half a hash an entry': written(tap='dense'),
    }
    for name, loss in (('CWD', CWD), ('PKD', PKD)):
        found[f'MMRazor FpnTeacherDistill, {name}'] = of_mmrazor(
            maps, 'FpnTeacherDistill', long_form_maps(maps, loss)
        )
    return found


def two_stage_arms(teacher_ckpt: str) -> dict[str, Any]:
    """Ours on RoIs and on the FPN, and MMRazor's."""
    cfg = Config.fromfile(REPO / TWO_STAGE)
    ours = cfg.model
    ours.teacher_ckpt = teacher_ckpt

    def variant(**changes: Any) -> Any:
        model = cfg.copy()
        model.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
        return model.model

    return {
        'RoI, LSHL2': ours,
        'RoI, LSHL2, max_rois=128': variant(max_rois=128),
        'FPN, PKD': variant(**{'distiller.active': ['fpn']}),
        'MMRazor FpnTeacherDistill, PKD': of_mmrazor(
            ours, 'FpnTeacherDistill', long_form_maps(ours, PKD)
        ),
        'MMRazor SingleTeacherDistill, LSHL2': of_mmrazor(
            ours,
            'SingleTeacherDistill',
            long_form_rois(
                [*ours.distiller.losses.lsh, *ours.distiller.losses.l2]
            ),
        ),
    }


def of_mmrazor(ours: Any, kind: str, distiller: dict[str, Any]) -> ConfigDict:
    """An algorithm of MMRazor with the models of one of ours."""
    return ConfigDict(
        _scope_='mmrazor',
        type=kind,
        architecture=ours.architecture,
        teacher={**ours.teacher, 'pretrained': False},
        teacher_ckpt=ours.teacher_ckpt,
        distiller=distiller,
    )


def long_form_maps(ours: Any, loss: dict[str, Any]) -> dict[str, Any]:
    """A loss on all levels of the necks, as MMRazor's own configs have it."""
    neck = ours.architecture.neck
    levels = len(neck.in_channels)
    if neck.type == 'FPN':
        levels = neck.num_outs
    connector = ours.distiller.get('connectors', {}).get('fpn')
    connectors, between = {}, {}
    if connector:
        between = dict(connector='width')
        connectors['width'] = dict(
            type='ConvModuleConnector',
            in_channel=connector.in_channels,
            out_channel=connector.out_channels,
            norm_cfg=None,
            act_cfg=None,
        )
    recorder = dict(fpn=dict(type='ModuleOutputs', source='neck'))
    sides = dict(preds_S=True, preds_T=False)
    return dict(
        type='ConfigurableDistiller',
        student_recorders=recorder,
        teacher_recorders=recorder,
        connectors=connectors,
        distill_losses={f'loss_map{i}': loss for i in range(levels)},
        loss_forward_mappings={
            f'loss_map{i}': {
                side: dict(
                    from_student=student,
                    recorder='fpn',
                    data_idx=i,
                    **(between if student else {}),
                )
                for side, student in sides.items()
            }
            for i in range(levels)
        },
    )


def long_form_rois(losses: list[dict[str, Any]]) -> dict[str, Any]:
    """The same losses on the RoIs that each model samples for itself."""
    recorder = dict(
        roi=dict(type='ModuleInputs', source='roi_head.bbox_head.fc_cls')
    )
    lsh, l2 = (dict(loss) for loss in losses)
    lsh.update(feature_dim=1024, std=0.01)
    sides = [
        dict(from_student=student, recorder='roi', data_idx=0)
        for student in (True, False)
    ]
    return dict(
        type='ConfigurableDistiller',
        student_recorders=recorder,
        teacher_recorders=recorder,
        distill_losses=dict(loss_lsh=lsh, loss_l2=l2),
        loss_forward_mappings=dict(
            loss_lsh=dict(s_feature=sides[0], t_feature=sides[1]),
            loss_l2=dict(s_feature=sides[0], t_feature=sides[1]),
        ),
    )


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
        tensors = dict(self.model.state_dict())
        if hasattr(self.model, 'teacher'):
            teacher = self.model.teacher.state_dict()
            tensors |= {f'teacher.{k}': v for k, v in teacher.items()}
        state = self.optimizer.optimizer.state.values()
        found = [*tensors.values(), *(v for x in state for v in x.values())]
        return sum(x.nbytes for x in found if isinstance(x, torch.Tensor))


def propose_alike(model: nn.Module) -> None:
    """Let an RPN propose boxes half as long as their anchors, of all sizes.

    With random weights one proposes small boxes and another large ones, and
    large ones take longer to pool.
    """
    if hasattr(model, 'rpn_head'):
        rpn = model.rpn_head
        nn.init.zeros_(rpn.rpn_cls.weight)
        nn.init.zeros_(rpn.rpn_reg.weight)
        deltas = rpn.rpn_reg.bias.detach().view(-1, 4)
        deltas[:, 2:] = math.log(0.5)


def number_and_side(rois: torch.Tensor) -> tuple[int, float]:
    """How many boxes there are, and the mean root of their areas, pixels."""
    sizes = (rois[:, 3:] - rois[:, 1:3]).clamp(min=0)
    return len(rois), float(sizes.prod(1).sqrt().mean())


class Meter:
    """Clock and memory of a device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def seconds(self, run: Callable[[], Any]) -> float:
        """How long a call takes."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def peak(self, run: Callable[[], Any]) -> int:
        """Bytes that a call needs at most, beside what is there."""
        gc.collect()
        if self.device == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            return torch.cuda.max_memory_allocated() - before
        ctypes.CDLL('libc.so.6').malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5', 'utf-8')  # resets VmHWM
        before = memory('VmRSS')
        run()
        return memory('VmHWM') - before

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()


def raw_batch(options: Any) -> dict[str, Any]:
    """Images with noise and boxes, as a dataloader gives them."""
    height, width = options.size
    return demo_mm_inputs(
        options.images,
        (3, height, width),
        num_items=[8] * options.images,
        num_classes=80,
        device=options.device,
    )


class Parts:
    """The parts of an arm's step, to be timed alone."""

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
        for level in self.levels:
            student = level.student.requires_grad_()
            for loss in self.losses:
                total = total + loss(student, level.teacher)
        total.backward()


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


def time_detector(
    detector: str, options: Any, folder: Path
) -> dict[str, dict[str, Any]]:
    """All arms of a detector."""
    teacher_ckpt = str(folder / f'{detector}.pth')
    cfg_path = Config.fromfile(REPO / TWO_STAGE).model.teacher.cfg_path
    if detector in DENSE:
        cfg_path = DENSE[detector][0]
    torch.manual_seed(1)
    teacher = ROOT.build(model_config('teacher', dict(cfg_path=cfg_path)))
    propose_alike(teacher)
    torch.save({'state_dict': teacher.state_dict()}, teacher_ckpt)
    del teacher
    chosen = configs(detector, teacher_ckpt, options.channels_last)
    arms: dict[str, Arm] = {}
    weights = None
    for name, config in chosen.items():
        arms[name] = Arm(config, options, weights)
        if weights is None:
            propose_alike(arms[name].model)
            weights = arms[name].model.state_dict()
    batch, meter = raw_batch(options), Meter(options.device)
    found: dict[str, dict[str, Any]] = {name: {} for name in arms}
    for name, arm in arms.items():  # warm-up
        arm.step(batch, 0)
        found[name]['peak'] = meter.peak(lambda a=arm: a.step(batch, 0))
        found[name]['peak'] += arm.resident()
        found[name].update(checkpoint_sizes(arm, folder))
        found[name]['rois'] = dict(arm.rois)
    parts = {
        name: Parts(arm, batch)
        for name, arm in arms.items()
        if hasattr(arm.model, 'teachers')
    }
    names = ('pyramid', 'head', 'products', 'loss')
    runs: dict[str, dict[str, list[float]]] = {
        name: {k: [] for k in ('step', *(names if name in parts else ()))}
        for name in arms
    }
    order = list(arms)
    for index in tqdm(range(options.rounds + 1), f'{detector}, rounds'):
        order = order[1:] + order[:1]
        for name in order:
            seconds = {
                'step': meter.seconds(
                    lambda a=arms[name], i=index: a.step(batch, i)
                )
            }
            if name in parts:
                for part in names:
                    run = getattr(parts[name], part)
                    seconds[part] = meter.seconds(run)
            if index:  # the first is warm-up
                for key, value in seconds.items():
                    runs[name][key].append(value)
    plain = runs['student alone']['step']
    for name, times in runs.items():
        entry = found[name]
        entry['seconds'] = {k: statistics.median(v) for k, v in times.items()}
        entry['ratio'] = ratio(times['step'], plain)
        if name in parts:
            floor = [
                sum(x)
                for x in zip(
                    plain, *(times[k] for k in names[:3]), strict=True
                )
            ]
            entry['floor'] = ratio(times['step'], floor)
        entry['rounds'] = times['step']
    compare(found, runs)
    return found


def compare(found: dict[str, Any], runs: dict[str, Any]) -> None:
    """Add the ratios to MMRazor's algorithms."""
    for name, entry in found.items():
        for other in runs:
            if other.startswith('MMRazor') and not name.startswith('MMRazor'):
                key = other.split()[1].rstrip(',')
                entry[f'to {key}'] = ratio(
                    runs[name]['step'], runs[other]['step']
                )


def ratio(times: list[float], others: list[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def time_loss(options: Any) -> dict[str, Any]:
    """The LSH loss against the plain formulation, forward and backward."""
    meter, (n, d, k) = Meter(options.device), options.loss_shape
    generator = torch.Generator().manual_seed(0)
    student, teacher, weight = (
        torch.randn(*shape, generator=generator).to(options.device)
        for shape in ((n, d), (n, d), (k, d))
    )
    weight, bias = weight * 0.1, torch.zeros(k, device=options.device)
    student.requires_grad_()

    def plain() -> torch.Tensor:
        with torch.no_grad():
            codes = (F.linear(teacher, weight, bias) > 0).float()
        return F.binary_cross_entropy_with_logits(
            F.linear(student, weight, bias), codes
        )

    def ours() -> torch.Tensor:
        return lsh_loss(student, teacher, weight, bias)

    runs: dict[str, list[float]] = {'plain': [], 'ours': []}
    forms = {'plain': plain, 'ours': ours}
    values, gradients, peaks = {}, {}, {}
    for name, form in forms.items():
        student.grad = None
        values[name] = form()
        values[name].backward()
        gradients[name] = student.grad
        student.grad = None
        peaks[name] = meter.peak(lambda f=form: f().backward())
    for _ in tqdm(range(options.rounds), 'loss, rounds'):
        for name, form in forms.items():
            student.grad = None
            runs[name].append(meter.seconds(lambda f=form: f().backward()))
    difference = gradients['ours'] - gradients['plain']
    return {
        'shape': options.loss_shape,
        'seconds': {x: statistics.median(v) for x, v in runs.items()},
        'time': ratio(runs['ours'], runs['plain']),
        'peak': peaks,
        'memory': peaks['ours'] / peaks['plain'],
        'value': abs(float(values['ours'] / values['plain']) - 1),
        'gradient': float(difference.norm() / gradients['plain'].norm()),
    }


def machine(options: Any) -> dict[str, Any]:
    """On what this was measured."""
    name = processor()
    if options.device == 'cuda':
        name = f'{torch.cuda.get_device_name()}, {name}'
    # Only once lshfm_mm is there does it import beside OneDL's mmcv.
    mmrazor = importlib.import_module('mmrazor')
    modules = (torch, mmengine, mmcv, mmdet, mmrazor, lshfm_mm)
    return {
        'hardware': name,
        'threads': torch.get_num_threads(),
        'versions': {x.__name__: x.__version__ for x in modules},
        'commit': commit(REPO),
        'images': options.images,
        'size': options.size,
        'rounds': options.rounds,
        'amp': options.amp,
        'channels_last': options.channels_last,
    }


def page(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    about = result['machine']
    versions = ', '.join(f'{k} {v}' for k, v in about['versions'].items())
    height, width = about['size']
    lines = [
        '# Benchmarks',
        '',
        f'    {result["command"]}',
        '',
        f'{about["hardware"]}, {about["threads"]} threads; {versions}; '
        f'commit {about["commit"]}. {about["images"]} images of '
        f'{height} x {width}, R101 -> R50, RTMDet-m -> RTMDet-s, '
        f'{"mixed precision" if about["amp"] else "float32"}'
        f'{", our teachers in channels-last" * about["channels_last"]}, '
        f'medians of '
        f'{about["rounds"]} rounds.',
        '',
    ]
    for detector, arms in result['detectors'].items():
        lines += [
            f'## {detector}',
            '',
            '| arm | s / step | to the plain student | to its floor '
            '| to FpnTeacherDistill | to SingleTeacherDistill | peak, MiB '
            '| checkpoint, MB | exported, MB | RoIs of student, teacher |',
            '|---|---|---|---|---|---|---|---|---|---|',
        ]
        for name, x in arms.items():
            cells = [
                name,
                f'{x["seconds"]["step"]:.3f}',
                *(
                    f'{x[key]:.2f}' if key in x else ''
                    for key in (
                        'ratio',
                        'floor',
                        'to FpnTeacherDistill',
                        'to SingleTeacherDistill',
                    )
                ),
                f'{x["peak"] / 2**20:.0f}',
                f'{x["checkpoint"] / 1e6:.0f}',
                f'{x["student"] / 1e6:.0f}' if 'student' in x else '',
                ', '.join(
                    f'{n} of {px:.0f} px' for n, px in x['rois'].values()
                ),
            ]
            lines.append(f'| {" | ".join(cells)} |')
        lines += [
            '',
            '| parts, s | teacher, backbone and neck | teacher, head '
            '| matrix products of the loss | losses |',
            '|---|---|---|---|---|',
        ]
        for name, x in arms.items():
            if 'pyramid' in x['seconds']:
                cells = [
                    f'{x["seconds"][k]:.3f}'
                    for k in ('pyramid', 'head', 'products', 'loss')
                ]
                lines.append(f'| {name} | {" | ".join(cells)} |')
        lines.append('')
    x = result['loss']
    n, d, k = x['shape']
    lines += [
        '## The LSH loss against its plain formulation',
        '',
        f'N = {n}, D = {d}, K = {k}, forward and backward.',
        '',
        '| | s | peak beside the inputs, MiB |',
        '|---|---|---|',
        *(
            f'| {name} | {x["seconds"][name]:.3f} '
            f'| {x["peak"][name] / 2**20:.0f} |'
            for name in x['seconds']
        ),
        f'| ratio | {x["time"]:.2f} | {x["memory"]:.3f} |',
        '',
        f'Relative difference of the values {x["value"]:.1e}, of the '
        f'gradients {x["gradient"]:.1e}.',
        '',
    ]
    return '\n'.join(lines)


def check(options: argparse.Namespace) -> None:
    """Raise unless there is something to measure, and a place for it."""
    if options.device == 'cpu' and platform.system() != 'Linux':
        raise ConfigError(
            f"device: the CPU's memory is read from /proc, which "
            f'{platform.system()} does not have; run it on Linux, or on cuda'
        )
    for field in ('images', 'size', 'rounds', 'loss_shape'):
        value = getattr(options, field)
        if min(value if isinstance(value, list) else [value]) < 1:
            raise ConfigError(
                f'{field}: must be >= 1, but got {value}; raise it'
            )
    for field in ('json', 'out'):
        path = Path(getattr(options, field) or 'x')
        if not path.parent.is_dir():
            raise ConfigError(
                f'{field}: no such folder: {path.parent}; make it'
            )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', default='cpu', choices=('cpu', 'cuda'))
    parser.add_argument('--images', type=int, default=2, help='of a batch')
    parser.add_argument(
        '--size', type=int, nargs=2, default=[400, 640], help='height, width'
    )
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (CUDA)'
    )
    parser.add_argument(
        '--channels-last', action='store_true', help='our teachers'
    )
    parser.add_argument(
        '--detectors',
        nargs='*',
        default=list(DETECTORS),
        choices=DETECTORS,
    )
    parser.add_argument(
        '--loss-shape', type=int, nargs=3, default=list(LOSS_SHAPE),
        metavar=('N', 'D', 'K'),
    )  # fmt: skip
    parser.add_argument('--json', help='file for all figures')
    parser.add_argument('--out', help='Markdown page to write')
    options = parser.parse_args()
    cli.load_stack()
    check(options)
    warnings.simplefilter('ignore')
    MMLogger.get_instance('benchmark', log_level='ERROR')
    register_all_modules(init_default_scope=True)
    command = 'python benchmarks/benchmark.py'
    for field, value in vars(options).items():
        if value != parser.get_default(field):
            flag = f'--{field.replace("_", "-")}'
            values = value if isinstance(value, list) else [value]
            words = [] if value is True else [str(x) for x in values]
            command = ' '.join([command, flag, *words])
    result: dict[str, Any] = {
        'command': command,
        'machine': machine(options),
        'loss': time_loss(options),
        'detectors': {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for detector in options.detectors:
            result['detectors'][detector] = time_detector(
                detector, options, Path(folder)
            )
    text = page(result)
    print(text)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), 'utf-8')
    if options.out:
        Path(options.out).write_text(text, 'utf-8')


if __name__ == '__main__':
    cli.run_main(main)
