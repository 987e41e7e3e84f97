"""The distiller: which features are compared, where, by which losses.

MMRazor's long form (recorders, losses, mappings) works as it does there.
Beside it stands the short form: *taps*, the places where features are taken
in both models, and the losses on each. From taps the distiller builds the
recorders and losses of the long form.
"""

import difflib
from collections.abc import Mapping, Sequence
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
    as its second argument, both in float32 or better, outside autocast.
    Where a tap has several features (the levels of an FPN, the calls of a
    head that all levels share) the loss is added up over them. Without
    samples (no RoI) it is 0 and has a gradient.

    An :class:`LSHLoss` whose width or std is not given takes them from the
    tapped layer of the teacher.

    Args:
        taps (dict, optional): Name of a tap -> see :meth:`Tap.parse`.
        losses (dict, optional): Name of a tap -> list of loss configs. They
            are logged as ``distill.loss_{tap}_{loss}``.
        connectors (dict, optional): Connector configs. One that has the name
            of a tap maps each feature of the student there to the teacher's
            width.
        active (list[str], optional): The taps in use. Defaults to all.
        kwargs: Arguments of MMRazor's ``ConfigurableDistiller``, without
            deliveries: they need the teacher to go first.

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
        if kwargs.get('distill_deliveries'):
            raise ConfigError(
                'distill_deliveries: are not possible where the student goes '
                'first; remove them'
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
            named = _named_losses(name, losses.get(name), distill_losses)
            self._tap_losses[name] = list(named)
            distill_losses.update(named)
        for owner, recorder in recorders.items():
            kwargs[owner] = {**(kwargs.get(owner) or {}), **recorder}
        with forked_rng():
            super().__init__(
                connectors=connectors, distill_losses=distill_losses, **kwargs
            )
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
        for name in self.taps:
            self._check_widths(name, model)
        for name, loss in self.distill_losses.items():
            if isinstance(loss, LSHLoss) and not loss.is_ready:
                self._set_projection(name, loss, model)

    def compute_distill_losses(self) -> dict[str, Tensor]:
        """Compute all losses from what the recorders hold, and empty them.

        Returns:
            dict[str, Tensor]: Name of a loss -> its value, ().
        """
        values = super().compute_distill_losses()  # of the long form
        for name, losses in self._tap_losses.items():
            levels = self._levels(name)
            for loss in losses:
                values[loss] = _sum_over_levels(
                    self.distill_losses[loss], levels
                )
        self._empty_recorders()
        return values

    def _levels(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Pairs of features at a tap, after its connector, in float32."""
        record = self.taps[name].record
        s_features, t_features = (
            _features(manager.get_recorder(name).data_buffer, record)
            for manager in (self.student_recorders, self.teacher_recorders)
        )
        if name in self.connectors:
            s_features = [self.connectors[name](x) for x in s_features]
        shapes = [
            [tuple(x.shape) for x in y] for y in (s_features, t_features)
        ]
        if shapes[0] != shapes[1] or not shapes[0]:
            raise ConfigError(
                f'taps.{name}: the features of the student are {shapes[0]}, '
                f'those of the teacher {shapes[1]}; tap layers that run in '
                f'both models, and where only widths differ add a connector'
            )
        return [
            (_full_precision(s), _full_precision(t))
            for s, t in zip(s_features, t_features, strict=True)
        ]

    def _empty_recorders(self) -> None:
        """Let go of features, or they outlive the step with their graph."""
        for manager in (self.student_recorders, self.teacher_recorders):
            for recorder in manager.recorders.values():
                recorder.reset_data_buffer()

    def _check_widths(self, name: str, teacher: nn.Module) -> None:
        tap = self.taps[name]
        layer = teacher.get_submodule(tap.teacher)
        ours, theirs = self._student_widths[name], _width(layer, tap.record)
        if name not in self.connectors and None not in (ours, theirs):
            if ours != theirs:
                raise ConfigError(
                    f'taps.{name}: the student is {ours} wide and the teacher '
                    f'{theirs}; add to the distiller connectors=dict({name}='
                    f'{_connector(layer, ours, theirs)})'
                )
        for loss_name in self._tap_losses[name]:
            dim = getattr(self.distill_losses[loss_name], 'feature_dim', None)
            if None not in (dim, theirs) and dim != theirs:
                raise ConfigError(
                    f'{loss_name}.feature_dim: is {dim}, but the teacher is '
                    f'{theirs} wide there; leave it out'
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


def _named_losses(
    tap: str, losses: Sequence[dict] | None, taken: Mapping[str, Any]
) -> dict[str, dict]:
    """Name the losses of a tap ``loss_{tap}_{type}``, and number twins."""
    if not losses:
        raise ConfigError(
            f'losses: has none for the tap {tap!r}; add some or leave the '
            f'tap out of active'
        )
    named: dict[str, dict] = {}
    for loss in losses:
        _check_loss(tap, loss)
        short = loss['type'].split('.')[-1].removesuffix('Loss').lower()
        name, number = f'loss_{tap}_{short}', 2
        while name in named or name in taken:
            name, number = f'loss_{tap}_{short}{number}', number + 1
        named[name] = loss
    return named


def _check_loss(tap: str, loss: Mapping[str, Any]) -> None:
    """Raise unless a loss takes two features and no more."""
    if not isinstance(loss, Mapping):
        raise ConfigError(
            f'losses.{tap}: must be a list of loss configs, but holds {loss!r}'
        )
    loss_type = loss.get('type')
    loss_class = MODELS.get(loss_type) if loss_type else None
    if loss_class is None:
        raise ConfigError(
            f'losses.{tap}: {loss_type!r} is not in the registry'
            f'{_nearest(str(loss_type), MODELS.module_dict)}'
        )
    parameters = list(signature(loss_class.forward).parameters.values())[1:]
    needed = [x.name for x in parameters if x.default is x.empty]
    if len(needed) != 2:
        raise ConfigError(
            f'losses.{tap}: {loss_type} needs {needed}, but a tap gives two '
            f"features; use MMRazor's distill_losses for it"
        )


def _sum_over_levels(
    loss: nn.Module, levels: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    values = []
    for s_feature, t_feature in levels:
        with torch.autocast(s_feature.device.type, enabled=False):
            if s_feature.numel():
                values.append(loss(s_feature, t_feature))
            else:
                values.append(s_feature.sum() * 0)
    return torch.stack(values).sum()


def _features(buffer: Sequence[Any], record: str) -> list[Tensor]:
    """All features in a recorder: of each call, and of each of its levels."""
    features: list[Tensor] = []
    for call in buffer:
        # The input is the first positional argument.
        found = call[0] if record == 'input' else call
        features += [found] if isinstance(found, Tensor) else found
    return features


def _full_precision(feature: Tensor) -> Tensor:
    return feature.to(torch.promote_types(feature.dtype, torch.float32))


def _connector(layer: nn.Module, ours: int | None, theirs: int | None) -> str:
    """The config of a connector that joins two widths."""
    if isinstance(layer, nn.Linear):
        name, kind, more = 'Linear', 'features', ''
    else:
        name, kind, more = 'Conv2d', 'channels', ', kernel_size=1'
    return (
        f"dict(type='TorchNNConnector', module_name='{name}', module_args="
        f'dict(in_{kind}={ours}, out_{kind}={theirs}{more}))'
    )


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
