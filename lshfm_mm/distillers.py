"""The distiller: which features are compared, where, by which losses.

MMRazor's long form (recorders, losses, mappings) works as it does there.
Beside it stands the short form: *taps*, the places where features are taken
in both models, and the losses on each. From taps the distiller builds the
recorders, losses and mappings of the long form.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.registry import MODELS
from torch import Tensor, nn

from .errors import ConfigError
from .losses import LSHLoss
from .teacher import forked_rng

RECORDS = {'input': 'ModuleInputs', 'output': 'ModuleOutputs'}


class Tap(NamedTuple):
    """A place where the features of both models are taken."""

    student: str
    teacher: str
    record: str

    @classmethod
    def parse(cls, name: str, tap: str | Mapping[str, str]) -> 'Tap':
        """Read the config of a tap.

        Args:
            name (str): Name of the tap.
            tap (str | dict): The layer, by its name in both models, whose
                input is the feature; or a dict with ``layer`` (or
                ``student`` and ``teacher`` where the names differ) and
                ``record``, 'input' or 'output'.

        Returns:
            Tap: The tap.

        Raises:
            ConfigError: If a key is missing or unknown.
        """
        if isinstance(tap, str):
            return cls(tap, tap, 'input')
        if not isinstance(tap, Mapping):
            raise ConfigError(
                f'taps.{name}: must be the name of a layer or a dict, but '
                f'got {tap!r}'
            )
        rest = dict(tap)
        layer = rest.pop('layer', None)
        student = rest.pop('student', layer)
        teacher = rest.pop('teacher', layer)
        record = rest.pop('record', 'input')
        if rest or student is None or teacher is None:
            raise ConfigError(
                f'taps.{name}: needs layer, or student and teacher, and may '
                f'have record, but got {dict(tap)}'
            )
        if record not in RECORDS:
            raise ConfigError(
                f'taps.{name}.record: must be one of {tuple(RECORDS)}, but '
                f'got {record!r}'
            )
        return cls(student, teacher, record)


@MODELS.register_module()
class LSHFMDistiller(ConfigurableDistiller):
    """Distiller that mimics features at taps.

    A loss at a tap gets the student's feature as its first and the teacher's
    as its second argument, both in float32, outside autocast. A tap with a
    sequence of features, as the levels of an FPN, adds up the loss of all
    levels. Without samples (no RoI) the loss is 0 and has a gradient.

    An :class:`LSHLoss` whose width or std is not given takes them from the
    tapped layer of the teacher.

    Args:
        taps (dict, optional): Name of a tap -> see :meth:`Tap.parse`.
        losses (dict, optional): Name of a tap -> list of loss configs. They
            are logged as ``distill.loss_{tap}_{loss}``.
        connectors (dict, optional): Connector configs. One that has the name
            of a tap maps the student's feature of that tap to the teacher's
            width.
        active (list[str], optional): The taps in use. Defaults to all.
        kwargs: Arguments of MMRazor's ``ConfigurableDistiller``.

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
        taps, losses = dict(taps or {}), dict(losses or {})
        for name in [*losses, *(active or [])]:
            if name not in taps:
                raise ConfigError(
                    f'taps: has no {name!r}{_nearest(name, taps)}; its taps '
                    f'are {sorted(taps)}'
                )
        self.taps = {
            name: Tap.parse(name, tap)
            for name, tap in taps.items()
            if active is None or name in active
        }
        long_form = _long_form(self.taps, losses, connectors or {})
        for key, part in long_form.items():
            kwargs[key] = {**(kwargs.get(key) or {}), **part}
        self._tap_losses = set(long_form['distill_losses'])
        with forked_rng():
            super().__init__(connectors=connectors, **kwargs)
        self._student_widths: dict[str, int | None] = {}

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
        _check_sources('student', model, self.student_recorders)
        super().prepare_from_student(model)
        self._student_widths = {
            name: _width(model.get_submodule(tap.student), tap.record)
            for name, tap in self.taps.items()
        }

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Attach the teacher's recorders; take width and std from it.

        Args:
            model (nn.Module): The teacher, its weights loaded.

        Raises:
            ConfigError: If a recorder names a layer that is not there, or
                the widths of student and teacher differ at a tap without a
                connector.
        """
        _check_sources('teacher', model, self.teacher_recorders)
        super().prepare_from_teacher(model)
        for name, tap in self.taps.items():
            self._check_widths(
                name,
                self._student_widths[name],
                _width(model.get_submodule(tap.teacher), tap.record),
            )
        for name, loss in self.distill_losses.items():
            if isinstance(loss, LSHLoss) and not loss.is_ready:
                self._set_projection(name, loss, model)

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Compute all losses from what the recorders hold, and empty them.

        Returns:
            dict[str, Tensor]: Name of a loss -> its value, ().
        """
        values = {}
        for name, mapping in self.loss_forward_mappings.items():
            loss = self.distill_losses[name]
            records = {
                argument: self.get_record(**record)
                for argument, record in mapping.items()
            }
            if name in self._tap_losses:
                values[name] = _sum_over_levels(name, loss, records)
            else:
                values[name] = loss(**records)
        self._empty_recorders()
        return values

    def _empty_recorders(self) -> None:
        """Let go of features, or they outlive the step with their graph."""
        for manager in (self.student_recorders, self.teacher_recorders):
            for recorder in manager.recorders.values():
                recorder.reset_data_buffer()

    def _check_widths(
        self, name: str, student: int | None, teacher: int | None
    ) -> None:
        if name in self.connectors or None in (student, teacher):
            return
        if student != teacher:
            raise ConfigError(
                f'taps.{name}: the student is {student} wide and the teacher '
                f'{teacher}; add connectors=dict({name}=dict('
                f"type='TorchNNConnector', module_name='Linear', module_args="
                f'dict(in_features={student}, out_features={teacher})))'
            )

    def _set_projection(
        self, name: str, loss: LSHLoss, teacher: nn.Module
    ) -> None:
        layer, record = self._teacher_layer(name, teacher)
        dim = loss.feature_dim or _width(layer, record)
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


def _long_form(
    taps: Mapping[str, Tap],
    losses: Mapping[str, Sequence[dict]],
    connectors: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Write taps and their losses as MMRazor's long form."""
    form: dict[str, dict[str, Any]] = {
        'student_recorders': {},
        'teacher_recorders': {},
        'distill_losses': {},
        'loss_forward_mappings': {},
    }
    for name, tap in taps.items():
        if not losses.get(name):
            raise ConfigError(
                f'losses: has none for the tap {name!r}; add some or leave '
                f'the tap out of active'
            )
        kind = RECORDS[tap.record]
        form['student_recorders'][name] = dict(type=kind, source=tap.student)
        form['teacher_recorders'][name] = dict(type=kind, source=tap.teacher)
        teacher = dict(recorder=name, from_student=False)
        if tap.record == 'input':  # positional arguments; the first is it
            teacher['data_idx'] = 0
        student: dict[str, Any] = {**teacher, 'from_student': True}
        if name in connectors:
            student['connector'] = name
        for loss in losses[name]:
            key = _loss_name(name, loss['type'], form['distill_losses'])
            form['distill_losses'][key] = loss
            form['loss_forward_mappings'][key] = dict(
                zip(_feature_arguments(loss), (student, teacher), strict=True)
            )
    return form


def _loss_name(tap: str, loss_type: str, taken: Mapping[str, Any]) -> str:
    """``loss_{tap}_{type}``, numbered from the second of a type on."""
    short = loss_type.split('.')[-1].removesuffix('Loss').lower()
    name, number = f'loss_{tap}_{short}', 2
    while name in taken:
        name, number = f'loss_{tap}_{short}{number}', number + 1
    return name


def _feature_arguments(loss: Mapping[str, Any]) -> list[str]:
    """Names of the student's and teacher's feature in a loss's forward."""
    loss_class = MODELS.get(loss['type'])
    if loss_class is None:
        raise ConfigError(
            f'losses: {loss["type"]!r} is not in the registry'
            f'{_nearest(loss["type"], MODELS.module_dict)}'
        )
    return list(signature(loss_class.forward).parameters)[1:3]


def _sum_over_levels(
    name: str, loss: nn.Module, records: Mapping[str, Any]
) -> Tensor:
    values = []
    for features in _levels(name, records):
        s_feature = next(iter(features.values()))
        with torch.autocast(s_feature.device.type, enabled=False):
            if s_feature.numel():
                values.append(loss(**features))
            else:
                values.append(s_feature.sum() * 0)
    return torch.stack(values).sum()


def _levels(
    name: str, records: Mapping[str, Any]
) -> Iterator[dict[str, Tensor]]:
    """Yield the arguments of a loss level by level, in full precision."""
    levels = {
        key: [value] if isinstance(value, Tensor) else list(value)
        for key, value in records.items()
    }
    s_levels, t_levels = levels.values()
    shapes = [[tuple(x.shape) for x in y] for y in (s_levels, t_levels)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f'{name}: the features of the student are {shapes[0]}, those of '
            f'the teacher {shapes[1]}; where only widths differ add a '
            f'connector to the tap'
        )
    for features in zip(s_levels, t_levels, strict=True):
        yield {
            key: x.float() if x.dtype in (torch.half, torch.bfloat16) else x
            for key, x in zip(levels, features, strict=True)
        }


def _width(layer: nn.Module, record: str) -> int | None:
    """Channels of a layer's input or output, None where it does not tell."""
    names = (
        ('in_features', 'in_channels')
        if record == 'input'
        else ('out_features', 'out_channels')
    )
    for name in names:
        width = getattr(layer, name, None)
        if isinstance(width, int):
            return width
    return None


def _check_sources(owner: str, model: nn.Module, manager: Any) -> None:
    """Raise unless each module that a recorder names is in the model."""
    layers = dict(model.named_modules())
    for name, recorder in manager.recorders.items():
        is_module = type(recorder).__name__.startswith('Module')
        if is_module and recorder.source not in layers:
            raise ConfigError(
                f'taps.{name}: the {owner} has no layer {recorder.source!r}'
                f'{_nearest(recorder.source, layers)}'
            )


def _nearest(name: str, names: Any) -> str:
    found = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f'; did you mean {" or ".join(map(repr, found))}?' if found else ''
