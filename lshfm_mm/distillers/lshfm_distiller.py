"""The distiller: which losses compare the features of both models.

MMRazor's long form (recorders, losses, mappings) works as it does there.
Beside it stands the short form: *taps*, the places where features are taken
in both models, and the losses on each. From taps the distiller builds the
recorders and losses of the long form.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.registry import MODELS
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import ConfigError, check_arguments, nearest
from ..losses.functional import scale_or_one
from ..losses.hashing import samples_of
from ..losses.l2 import FeatureL2Loss, RelativeL2Loss
from ..losses.lsh import LSHLoss
from ..utils.rng import forked_rng
from .level_pairs import Level, Seen
from .sample_weights import (
    class_confidence,
    correctly_classified,
    in_boxes,
    level_weights,
    not_ignored,
)
from .taps import (
    RECORDS,
    LabelsRecorder,
    Tap,
    check_sources,
    connector_config,
    loss_layer,
    named_losses,
    takes_weights,
    width_of,
    window_of_layer,
)

LABELS, LOGITS = '_labels_', '_logits_'  # of recorders beside those of taps
# Called with all losses and with what was seen at each tap, by name; the
# recorders still hold their records then.
Observer = Callable[[dict[str, Tensor], dict[str, Seen]], None]


@MODELS.register_module()
class LSHFMDistiller(ConfigurableDistiller):
    """Distiller that mimics features at taps.

    A loss at a tap gets the student's feature as its first and the teacher's
    as its second argument, both in float32 or better, outside autocast.
    Without samples (no RoI) it is 0 and has a gradient.

    - A layer that gives several maps at once (an FPN) has several sets of
      samples: the loss is taken of each level and added up. Levels are
      matched by their size; those of one model alone are left out.
    - A layer that is called for each level (the class layer of a dense head)
      sees one set of samples: the loss is their mean, image by image and
      then over images, without the locations all of whose anchors the
      student's own loss ignores (paper, section 3.5). A loss that cannot
      weigh samples counts those too.

    An :class:`LSHLoss` whose width or std is not given takes them from the
    tapped layer of the teacher, a k x k class layer with its window.

    Args:
        taps (dict, optional): Name of a tap -> see :meth:`Tap.parse`.
        losses (dict, optional): Name of a tap -> list of loss configs. They
            are logged as ``distill.loss_{tap}_{loss}``.
        connectors (dict, optional): Connector configs. One that has the name
            of a tap maps each feature of the student there to the teacher's
            width.
        active (list[str], optional): The taps in use. Defaults to all.
        kwargs: Arguments of MMRazor's ``ConfigurableDistiller``, without
            deliveries: the teacher's head waits for the student's boxes.

    Raises:
        ConfigError: If taps, losses and models do not fit together.
    """

    def __init__(
        self,
        taps: Mapping[str, Any] | None = None,
        losses: Mapping[str, Sequence[dict]] | None = None,
        connectors: dict[str, Any] | None = None,
        active: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments('distiller', type(self), kwargs)
        for field, value in (
            ('taps', taps),
            ('losses', losses),
            ('connectors', connectors),
        ):
            if not isinstance(value or {}, Mapping):
                raise ConfigError(
                    f'{field}: must be a dict with the names of taps as '
                    f'keys, but got {value!r}'
                )
        taps, losses = dict(taps or {}), dict(losses or {})
        _check_connectors(connectors or {}, taps, kwargs)
        for name in [*losses, *(active or [])]:
            if name not in taps:
                raise ConfigError(
                    f'taps: has no {name!r} among {sorted(taps)}'
                    f'{nearest(name, taps)}'
                )
        self.taps = {
            name: Tap.parse(name, tap)
            for name, tap in taps.items()
            if active is None or name in active
        }
        if kwargs.get('distill_deliveries'):
            raise ConfigError(
                "distill_deliveries: are not possible where the teacher's "
                "head waits for the student's boxes; remove them"
            )
        self._tap_losses: dict[str, list[str]] = {}
        recorders: dict[str, dict[str, dict]] = {
            'student_recorders': {},
            'teacher_recorders': {},
        }
        distill_losses = dict(kwargs.pop('distill_losses', None) or {})
        for name, tap in self.taps.items():
            kind = RECORDS[tap.record]
            for owner, source in (
                ('student_recorders', tap.student),
                ('teacher_recorders', tap.teacher),
            ):
                recorders[owner][name] = dict(type=kind, source=source)
            if tap.needs_logits:
                recorders['teacher_recorders'][LOGITS + name] = dict(
                    type='ModuleOutputs', source=tap.teacher
                )
            named = named_losses(
                name, tap.weights, losses.get(name), distill_losses
            )
            self._tap_losses[name] = list(named)
            distill_losses.update(named)
        if not distill_losses:
            raise ConfigError(
                'taps: none is active and there are no distill_losses, so '
                'that nothing would be mimicked; add a tap with losses'
            )
        for owner, recorder in recorders.items():
            kwargs[owner] = {**(kwargs.get(owner) or {}), **recorder}
        with forked_rng():
            super().__init__(
                connectors=connectors, distill_losses=distill_losses, **kwargs
            )
        self._student_widths: dict[str, dict[str, int | None]] = {}
        self._num_classes: dict[str, int] = {}
        self._scores: dict[str, tuple[nn.Module, int]] = {}
        self._told: set[str] = set()
        self.observers: list[Observer] = []
        # Taps on what runs on the student's RoIs. Samplers may run a box head
        # before the student does: there the last call counts.
        self.roi_taps: set[str] = set()

    def init_weights(self) -> None:
        """Initialise connectors and leave the random state untouched."""
        with forked_rng():
            super().init_weights()

    def prepare_from_student(self, model: BaseModel) -> None:
        """Attach the student's recorders.

        Args:
            model (BaseModel): The student.

        Raises:
            ConfigError: If a recorder names a layer that is not there.
        """
        check_sources('student', model, self.student_recorders)
        for name, tap in self.taps.items():
            layer = model.get_submodule(tap.student)
            self._student_widths[name] = {
                record: width_of(layer, record) for record in RECORDS
            }
            self._record_labels(name, model)
            head = model.get_submodule(tap.student.rpartition('.')[0])
            kinds = {x.__name__ for x in type(head).__mro__}
            if tap.weights == 'correct' and 'MultiLabelClsHead' in kinds:
                raise ConfigError(
                    f"taps.{name}.weights: 'correct' needs images with one "
                    f'label each, but the student has a '
                    f"{type(head).__name__}; use 'uniform'"
                )
        super().prepare_from_student(model)

    def _record_labels(self, name: str, student: nn.Module) -> None:
        """Record what the head of a tap asks its own loss for."""
        source = loss_layer(student, self.taps[name].student)
        if source is not None:
            head = student.get_submodule(source.rpartition('.')[0])
            self._num_classes[name] = getattr(head, 'num_classes', 0)
            self.student_recorders.recorders[LABELS + name] = LabelsRecorder(
                source
            )

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Attach the teacher's recorders; take width and std from it.

        Args:
            model (nn.Module): The teacher, its weights loaded.

        Raises:
            ConfigError: If a recorder names a layer that is not there, or
                the widths of student and teacher differ at a tap without a
                connector.
        """
        check_sources('teacher', model, self.teacher_recorders)
        super().prepare_from_teacher(model)
        for name, tap in self.taps.items():
            self._check_widths(name, model)
            if tap.weights == 'confidence':
                self._scores[name] = _scores_at(name, tap.teacher, model)
            layer = model.get_submodule(tap.teacher)
            for loss_name in self._tap_losses[name]:
                loss = self.distill_losses[loss_name]
                if isinstance(loss, FeatureL2Loss) and loss.window is None:
                    loss.window = window_of_layer(layer, tap.record)
        for name, loss in self.distill_losses.items():
            if isinstance(loss, LSHLoss) and not loss.is_ready:
                self._set_projection(name, loss, model)

    def foreground(self, name: str) -> Tensor | None:
        """Which of the student's RoIs at a tap are foreground to its loss.

        Args:
            name (str): Name of the tap.

        Returns:
            Tensor: bool, (R,); None where the head of the tap, if it has
            one, does not tell.
        """
        calls = self._calls(LABELS + name)
        labels = calls[-1][0] if calls else None
        if not isinstance(labels, Tensor) or not self._num_classes[name]:
            return None
        return (labels >= 0) & (labels < self._num_classes[name])

    def compute_distill_losses(
        self,
        data_samples: Sequence[Any] | None = None,
        image: tuple[int, int] | None = None,
        rows: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute all losses from what the recorders hold, and empty them.

        Args:
            data_samples (list, optional): Annotations of the batch.
            image (tuple, optional): Height and width of the network's input.
            rows (dict, optional): Name of a tap -> which of the student's
                samples there the teacher has seen.

        Returns:
            dict[str, Tensor]: Name of a loss -> its value, ().
        """
        self._check_records()
        values = super().compute_distill_losses()  # of the long form
        seen = {}
        for name, losses in self._tap_losses.items():
            picked = (rows or {}).get(name)
            levels = self._levels(name, picked)
            weights = self._weights(name, levels, picked, data_samples, image)
            seen[name] = Seen(levels, weights)
            shares = self._shares(name, levels)
            for loss in losses:
                module = self.distill_losses[loss]
                weighs = takes_weights(type(module))
                values[loss] = _sum_over_levels(
                    module, levels, shares, weights if weighs else None
                )
        for observe in self.observers:
            observe(values, seen)
        self.empty_recorders()
        return values

    def uncalibrated(self) -> dict[str, LSHLoss]:
        """Losses whose bias waits for the teacher's features, by name."""
        return {
            name: loss
            for name, loss in self.distill_losses.items()
            if isinstance(loss, LSHLoss) and loss.needs_calibration
        }

    def teacher_features(self, loss: str) -> list[Tensor]:
        """What is recorded of the teacher at the tap of a loss.

        Args:
            loss (str): Name of a loss.

        Returns:
            list[Tensor]: Features, of each call and level.

        Raises:
            ConfigError: If the loss is at no tap.
        """
        tap = self._tap_of(loss)
        calls = self._calls(tap, student=False)
        return _features(calls, self.taps[tap].record)

    def teacher_levels(self, loss: str) -> list[int]:
        """Which of these a loss compares with the recorded student.

        Args:
            loss (str): Name of a loss at a tap.

        Returns:
            list[int]: Indices, ascending.
        """
        return [x.t_index for x in self._levels(self._tap_of(loss), None)]

    def teacher_samples(
        self,
        loss: str,
        levels: Sequence[int],
        size: int,
        inside: Callable[[Tensor], Tensor],
    ) -> Iterator[Tensor]:
        """What the hash functions of a loss see of the recorded teacher.

        Args:
            loss (str): Name of an :class:`LSHLoss` at a tap.
            levels (list[int]): Which of the teacher's features count.
            size (int): How many samples are given at a time.
            inside (Callable): Which samples of a feature count.

        Yields:
            Tensor: Samples, float32 or better, (at most ``size``, D).
        """
        weight = self.distill_losses[loss].weight
        features = self.teacher_features(loss)
        normalize = self.taps[self._tap_of(loss)].normalize
        for feature in (features[x] for x in levels):
            if feature.numel():
                feature = feature.to(
                    torch.promote_types(feature.dtype, weight.dtype)
                )
                if normalize:
                    feature = feature / _scale(feature)
                yield from samples_of(feature, weight, inside(feature), size)

    def empty_recorders(self) -> None:
        """Let go of features, or they outlive the step with their graph."""
        for manager in (self.student_recorders, self.teacher_recorders):
            for recorder in manager.recorders.values():
                recorder.reset_data_buffer()

    def losses_of(self, tap: str) -> list[str]:
        """Names of the losses at a tap."""
        return self._tap_losses[tap]

    def weight_keys(self) -> dict[str, str]:
        """Name of a loss -> key of its weight in the distiller's config."""
        keys = {
            x: f'distill_losses.{x}.loss_weight' for x in self.distill_losses
        }
        for tap, losses in self._tap_losses.items():
            for index, name in enumerate(losses):
                keys[name] = f'losses.{tap}.{index}.loss_weight'
        return keys

    def recorded(self, tap: str, student: bool) -> list[Tensor]:
        """Features of a model at a tap, as its layer gave them."""
        calls = self._calls(tap, student)
        return _features(calls, self.taps[tap].record)

    def compared(self, loss: str) -> list[Tensor]:
        """The student's tensors that a loss of the long form gets."""
        entries = self.loss_forward_mappings.get(loss, {}).values()
        calls = [
            self._calls(x['recorder']) for x in entries if x['from_student']
        ]
        return [x for x in tree_leaves(calls) if isinstance(x, Tensor)]

    def _check_records(self) -> None:
        """Raise if a recorder of the long form has seen nothing."""
        for loss, arguments in self.loss_forward_mappings.items():
            for entry in arguments.values():
                student = entry['from_student']
                if not self._calls(entry['recorder'], student):
                    raise ConfigError(
                        f'loss_forward_mappings.{loss}: the recorder '
                        f'{entry["recorder"]!r} of the '
                        f'{"student" if student else "teacher"} has seen '
                        f'nothing, its layer does not run in training; '
                        f'record one that does'
                    )

    def _tap_of(self, loss: str) -> str:
        for tap, losses in self._tap_losses.items():
            if loss in losses:
                return tap
        raise ConfigError(
            f'{loss}.bias: only that of a loss at a tap can be calibrated; '
            f"use taps, or bias='zero'"
        )

    def _calls(self, recorder: str, student: bool = True) -> list[Any]:
        manager = self.student_recorders if student else self.teacher_recorders
        if recorder not in manager.recorders:
            return []
        calls = manager.get_recorder(recorder).data_buffer
        return calls[-1:] if recorder in self.roi_taps else calls

    def _levels(self, name: str, rows: Tensor | None) -> list[Level]:
        """Features at a tap, after its connector, in float32."""
        tap = self.taps[name]
        students = _features(self._calls(name), tap.record)
        teachers = _features(self._calls(name, student=False), tap.record)
        if not students and not teachers and rows is not None:
            return []  # a stage of a cascade that got no RoI
        if rows is not None:
            students = [x[rows] for x in students]
        if name in self.connectors:
            students = [self.connectors[name](x) for x in students]
        levels = []
        for s_index, t_index in self._pairs(name, students, teachers):
            s_feature, t_feature = (
                x.to(torch.promote_types(x.dtype, torch.float32))
                for x in (students[s_index], teachers[t_index].detach())
            )
            if tap.normalize:
                scale = _scale(t_feature)
                s_feature, t_feature = s_feature / scale, t_feature / scale
            levels.append(Level(s_feature, t_feature, s_index, t_index))
        return levels

    def _pairs(
        self, name: str, students: list[Tensor], teachers: list[Tensor]
    ) -> list[tuple[int, int]]:
        """Indices of the levels of both models that have the same size."""
        shapes = [[tuple(x.shape) for x in y] for y in (students, teachers)]
        pairs, start = [], 0
        for s_index, shape in enumerate(shapes[0]):
            if shape in shapes[1][start:]:
                t_index = shapes[1].index(shape, start)
                pairs.append((s_index, t_index))
                start = t_index + 1
        tap = self.taps[name]
        for owner, features, source in (
            ('student', students, tap.student),
            ('teacher', teachers, tap.teacher),
        ):
            if not features:
                raise ConfigError(
                    f'taps.{name}: the layer {source!r} of the {owner} does '
                    f'not run in training; tap one that does'
                )
        if not pairs:
            raise ConfigError(
                f'taps.{name}: the features of the student are {shapes[0]}, '
                f'those of the teacher {shapes[1]}; tap layers that run in '
                f'both models, at the same strides, and where only widths '
                f'differ add a connector'
            )
        left = len(students) + len(teachers) - 2 * len(pairs)
        if left and name not in self._told:
            self._told.add(name)
            print_log(
                f'taps.{name}: {len(pairs)} levels have the same stride in '
                f'both models, {left} of one alone are left out; student '
                f'{shapes[0]}, teacher {shapes[1]}',
                'current',
            )
        return pairs

    def _shares(self, name: str, levels: list[Level]) -> list[float]:
        """Parts of the levels in the loss where all samples count alike."""
        if len(self._calls(name)) < 2:
            return [1.0] * len(levels)
        counts = [x.student.numel() for x in levels]
        return [count / max(sum(counts), 1) for count in counts]

    def _weights(
        self,
        name: str,
        levels: list[Level],
        rows: Tensor | None,
        data_samples: Sequence[Any] | None,
        image: tuple[int, int] | None,
    ) -> list[Tensor] | None:
        """Weights of the samples of each level; None where all are alike."""
        kind = self.taps[name].weights
        together = len(self._calls(name)) > 1
        valid = self._not_ignored(name, levels)
        if not levels or (kind == 'uniform' and valid is None):
            return None
        if name in self.roi_taps and kind != 'uniform':
            if not levels[0].student.numel():
                return None
            if levels[0].student.dim() != 2:
                raise ConfigError(
                    f'taps.{name}.weights: {kind!r} weighs features (R, D) of '
                    f'RoIs, but these are {tuple(levels[0].student.shape)}; '
                    f"use 'uniform'"
                )
        foreground = confidence = None
        if kind == 'balanced':
            foreground = [
                self._foreground(name, x.student, rows, data_samples, image)
                for x in levels
            ]
        elif kind == 'correct':
            valid = [
                self._correct(name, x.t_index, data_samples) for x in levels
            ]
        elif kind == 'confidence':
            logits = self._calls(LOGITS + name, student=False)
            confidence = [
                class_confidence(
                    logits[x.t_index].float(), *self._scores[name]
                )
                for x in levels
            ]
        return level_weights(
            [x.student for x in levels],
            together,
            valid,
            foreground,
            confidence,
        )

    def _not_ignored(
        self, name: str, levels: list[Level]
    ) -> list[Tensor] | None:
        """Locations that the student's loss counts, (B, S) of each level."""
        calls = self._calls(LABELS + name)
        if name in self.roi_taps:
            return None
        masks = []
        for level in levels:
            batch, size = len(level.student), level.student.shape[2:]
            index, locations = level.s_index, math.prod(size)
            weights = calls[index][1] if index < len(calls) else None
            if (
                not isinstance(weights, Tensor)
                or not level.student.numel()
                or not size
                or weights.numel() < batch * locations
                or weights.numel() % (batch * locations)
            ):
                return None  # another kind of head: all locations count
            masks.append(not_ignored(weights, (batch, locations)))
        return masks

    def _correct(
        self, name: str, index: int, data_samples: Sequence[Any] | None
    ) -> Tensor:
        """Images that the teacher classifies correctly, (1, N)."""
        logits = self._calls(LOGITS + name, student=False)[index]
        samples = data_samples or []
        labels = [x.get('gt_label') for x in samples]
        if len(samples) != len(logits) or not all(
            isinstance(x, Tensor) and x.numel() == 1 for x in labels
        ):
            raise ConfigError(
                f"taps.{name}.weights: 'correct' needs images with one label "
                f"each; use 'uniform'"
            )
        # Mixed images have scores: the class that they have most of counts.
        scores = [x.get('gt_score') for x in samples]
        mixed = all(isinstance(x, Tensor) for x in scores)
        target = torch.stack(scores) if mixed else torch.cat(labels)
        return correctly_classified(logits, target)

    def _foreground(
        self,
        name: str,
        feature: Tensor,
        rows: Tensor | None,
        data_samples: Sequence[Any] | None,
        image: tuple[int, int] | None,
    ) -> Tensor:
        """Foreground among the samples of a feature, (B, S)."""
        if feature.dim() == 2:
            found = self.foreground(name)
            if found is not None:
                return (found if rows is None else found[rows])[None]
        elif image is not None and data_samples is not None:
            if all('gt_instances' in x for x in data_samples):
                boxes = [x.gt_instances.bboxes for x in data_samples]
                boxes = [getattr(x, 'tensor', x) for x in boxes]
                height, width = feature.shape[2:]
                return in_boxes(boxes, (height, width), image)
        raise ConfigError(
            f"taps.{name}.weights: 'balanced' needs boxes or the labels of "
            f"RoIs, and this batch has none; use 'uniform'"
        )

    def _check_widths(self, name: str, teacher: nn.Module) -> None:
        tap = self.taps[name]
        layer = teacher.get_submodule(tap.teacher)
        widths = self._student_widths[name]
        ours, theirs = widths[tap.record], width_of(layer, tap.record)
        if name not in self.connectors and None not in (ours, theirs):
            if ours != theirs:
                raise ConfigError(
                    f'taps.{name}: the student is {ours} wide and the teacher '
                    f'{theirs}; add to the distiller connectors=dict({name}='
                    f'{connector_config(layer, ours, theirs)})'
                )
        full = _feature_dim(layer, tap.record)
        classes = widths['output'], width_of(layer, 'output')
        if tap.weights == 'correct' and classes[0] != classes[1]:
            raise ConfigError(
                f"taps.{name}.weights: 'correct' needs the same classes, but "
                f'the student has {classes[0]} and the teacher {classes[1]}; '
                f"use 'uniform'"
            )
        for loss_name in self._tap_losses[name]:
            dim = getattr(self.distill_losses[loss_name], 'feature_dim', None)
            if None not in (dim, full) and dim not in (theirs, full):
                raise ConfigError(
                    f'{loss_name}.feature_dim: is {dim}, but the teacher is '
                    f'{full} wide there; leave it out'
                )

    def _set_projection(
        self, name: str, loss: LSHLoss, teacher: nn.Module
    ) -> None:
        layer, record = self._teacher_layer(name, teacher)
        dim = loss.feature_dim or _feature_dim(layer, record)
        if dim is None:
            raise ConfigError(
                f'{name}.feature_dim: cannot be read off the teacher there; '
                f'give it'
            )
        std = loss.std
        if not isinstance(std, int | float):
            weight = getattr(layer, 'weight', None)
            if record != 'input' or weight is None or weight.dim() < 2:
                raise ConfigError(
                    f"{name}.std: 'teacher' needs a tap on the input of a "
                    f'class layer; give a number'
                )
            std = float(weight.detach().float().std())
        loss.set_projection(dim, std)

    def _teacher_layer(
        self, name: str, teacher: nn.Module
    ) -> tuple[nn.Module, str]:
        """The teacher's layer whose record a loss gets, and the record."""
        for name_of_tap, losses in self._tap_losses.items():
            if name in losses:
                tap = self.taps[name_of_tap]
                return teacher.get_submodule(tap.teacher), tap.record
        records = {kind + 'Recorder': name for name, kind in RECORDS.items()}
        for entry in self.loss_forward_mappings.get(name, {}).values():
            if not entry['from_student']:
                recorder = self.teacher_recorders.get_recorder(
                    entry['recorder']
                )
                kind = records.get(type(recorder).__name__)
                if kind is not None:
                    return teacher.get_submodule(recorder.source), kind
        raise ConfigError(
            f'{name}: gets no layer of the teacher from which width and std '
            f'could be taken; give feature_dim and std'
        )


def _check_connectors(
    connectors: Mapping[str, Any],
    taps: Mapping[str, Any],
    long_form: Mapping[str, Any],
) -> None:
    """Raise at a connector that nothing would use."""
    mappings = (long_form.get('loss_forward_mappings') or {}).values()
    used = {x.get('connector') for y in mappings for x in y.values()}
    for name in connectors:
        if name not in taps and name not in used:
            raise ConfigError(
                f'connectors: has {name!r}, which is none of the taps '
                f'{sorted(taps)}{nearest(name, taps)}'
            )


def _sum_over_levels(
    loss: nn.Module,
    levels: list[Level],
    shares: list[float],
    weights: list[Tensor] | None,
) -> Tensor:
    """Add up a loss over levels; under weights these give the shares."""
    if not levels:
        return torch.zeros((), requires_grad=True)
    if isinstance(loss, RelativeL2Loss) and sum(shares) < len(levels):
        # One set of samples has one scale.
        plain = FeatureL2Loss(loss.loss_weight, loss.window)
        silent = [
            x._replace(student=torch.zeros_like(x.teacher)) for x in levels
        ]
        one = FeatureL2Loss(window=loss.window)
        scale = scale_or_one(_sum_over_levels(one, silent, shares, weights))
        return _sum_over_levels(plain, levels, shares, weights) / scale
    values = []
    for index, (s_feature, t_feature, *_) in enumerate(levels):
        with torch.autocast(s_feature.device.type, enabled=False):
            if not s_feature.numel():
                values.append(s_feature.sum() * 0)
            elif weights is None:
                values.append(shares[index] * loss(s_feature, t_feature))
            else:
                weight = weights[index]
                values.append(
                    weight.sum()
                    * loss(s_feature, t_feature, sample_weight=weight)
                )
    return torch.stack(values).sum()


def _scale(feature: Tensor) -> Tensor:
    """Root mean square, (); 1 where the feature is as good as 0."""
    return scale_or_one(feature.square().mean()).sqrt()


def _features(calls: Sequence[Any], record: str) -> list[Tensor]:
    """All features in a recorder: of each call, and of each of its levels."""
    features: list[Tensor] = []
    for call in calls:
        # The input is the first positional argument.
        found = call[0] if record == 'input' else call
        features += [found] if isinstance(found, Tensor) else found
    return features


def _feature_dim(layer: nn.Module, record: str) -> int | None:
    """Width of the feature of a sample, all of its window."""
    width = width_of(layer, record)
    return width and width * window_of_layer(layer, record) ** 2


def _scores_at(
    name: str, source: str, teacher: nn.Module
) -> tuple[nn.Module, int]:
    """The loss that knows what a class layer's logits mean, and classes."""
    found = loss_layer(teacher, source)
    loss = teacher.get_submodule(found) if found else nn.Identity()
    use_sigmoid = getattr(loss, 'use_sigmoid', None)
    is_map = isinstance(teacher.get_submodule(source), nn.Conv2d)
    if use_sigmoid is None or (is_map and not use_sigmoid):
        raise ConfigError(
            f"taps.{name}.weights: 'confidence' cannot tell what the scores "
            f"of the teacher's {source} mean; use 'balanced'"
        )
    assert found is not None
    head: Any = teacher.get_submodule(found.rpartition('.')[0])
    return loss, head.num_classes
