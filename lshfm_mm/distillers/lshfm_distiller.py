"""The distiller: which losses compare the features of both models.

MMRazor's long form (recorders, losses, mappings) works as it does there.
Beside it stands the short form: *taps*, the places where features are taken
in both models, and the losses on each. From taps the distiller builds the
recorders and losses of the long form.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmrazor.models.distillers import ConfigurableDistiller
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import ConfigError, check_arguments, nearest
from ..losses.hashing import samples_of
from ..losses.l2 import FeatureL2Loss
from ..losses.lsh import LSHLoss
from ..utils.rng import forked_rng
from .connected import ConnectedFeatures
from .level_losses import loss_over_levels
from .level_pairs import LevelPairs, TapObservation, root_mean_square
from .records import Records, logits_recorder
from .tap_weights import Batch, TapWeights
from .taps import (
    RECORDS,
    Tap,
    check_mappings,
    named_losses,
    widths_of,
    window_of_layer,
)
from .widths import (
    Widths,
    check_connectors,
    check_teacher_connectors,
    check_widths,
    recorded_layer,
    set_connectors,
    set_projection,
)

# Called with all losses and with what they compared at each tap, by name; the
# recorders still hold their records then.
Observer = Callable[[dict[str, Tensor], dict[str, TapObservation]], None]


@MODELS.register_module()
class LSHFMDistiller(ConfigurableDistiller):
    """Distiller that mimics features at taps.

    A loss at a tap gets the student's feature as its first and the teacher's
    as its second argument, both in float32 or better, outside autocast.
    Without samples (no RoI) it is 0 and has a gradient.

    - A layer that gives several maps at once (an FPN) has several sets of
      samples: the loss is taken of each level and added up. Levels are
      matched by their size; those of one model alone are left out.
    - A layer that is called for each level (the class layer of a dense head),
      or a list with a layer for each, sees one set of samples: the loss is
      their mean, image by image and then over images, without the locations
      all of whose anchors the student's own loss ignores (paper, section
      3.5). A loss that cannot weigh samples counts those too, and all count
      where the student's loss gets no weights, level by level.

    An :class:`LSHLoss` whose width or std is not given takes them from the
    tapped layer of the teacher, a k x k class layer with its window.

    Args:
        taps (dict, optional): Name of a tap -> see :meth:`Tap.parse`.
        losses (dict, optional): Name of a tap -> list of loss configs. They
            are logged as ``distill.loss_{tap}_{loss}``.
        connectors (dict, optional): Connector configs. One that has the name
            of a tap maps each feature of the student there to the teacher's
            width or grid; a list of several does so one after another.
        teacher_connectors (dict, optional): Likewise for the teacher's
            features; they must have no parameters.
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
        teacher_connectors: dict[str, Any] | None = None,
        active: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments('distiller', type(self), kwargs)
        check_mappings(
            taps=taps,
            losses=losses,
            connectors=connectors,
            teacher_connectors=teacher_connectors,
        )
        taps, losses = dict(taps or {}), dict(losses or {})
        check_connectors(
            connectors or {}, teacher_connectors or {}, taps, kwargs
        )
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
        students = dict(kwargs.pop('student_recorders', None) or {})
        teachers = dict(kwargs.pop('teacher_recorders', None) or {})
        distill_losses = dict(kwargs.pop('distill_losses', None) or {})
        for name, tap in self.taps.items():
            kind = RECORDS[tap.record]
            students[name] = dict(type=kind, source=tap.student)
            teachers[name] = dict(type=kind, source=tap.teacher)
            if tap.needs_logits:
                teachers[logits_recorder(name)] = dict(
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
        with forked_rng():
            super().__init__(
                student_recorders=students,
                teacher_recorders=teachers,
                connectors=connectors,
                distill_losses=distill_losses,
                **kwargs,
            )
            self.teacher_connectors = self.build_connectors(teacher_connectors)
        check_teacher_connectors(self.connectors, self.teacher_connectors)
        self.records = Records(
            self.taps, self.student_recorders, self.teacher_recorders
        )
        self.connected = ConnectedFeatures(
            self.records, self.connectors, self.teacher_connectors
        )
        self.pairs = LevelPairs(self.records, self.connected)
        self.weights = TapWeights(self.records)
        self._student_widths: dict[str, Widths] = {}
        self.observers: list[Observer] = []
        self.strength = 1.0  # by which all losses are multiplied

    def init_weights(self) -> None:
        """Initialise connectors and leave the random state untouched."""
        with forked_rng():
            super().init_weights()

    def prepare_from_student(self, model: BaseModel) -> None:
        """Attach the student's recorders.

        Raises:
            ConfigError: If a recorder names a layer that is not there.
        """
        self.connected.find_layers('student', model)
        for name, tap in self.taps.items():
            layer = model.get_submodule(tap.student)
            self.records.note_list(name, layer)
            self._student_widths[name] = {
                record: widths_of(layer, record) for record in RECORDS
            }
        self.weights.prepare_from_student(model)
        super().prepare_from_student(model)

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Attach recorders to the loaded teacher; take widths and std from it.

        Raises:
            ConfigError: If a recorder names a layer that is not there, or
                the widths of student and teacher differ at a tap without a
                connector.
        """
        self.connected.find_layers('teacher', model)
        super().prepare_from_teacher(model)
        self.weights.prepare_from_teacher(model)
        for name, tap in self.taps.items():
            losses = {x: self.distill_losses[x] for x in self.losses_of(name)}
            widths = self._student_widths[name]
            steps = self.connected.steps(name)
            check_widths(name, tap, steps, losses, widths, model)
            with forked_rng():
                set_connectors(name, tap, steps, widths, model)
            layer = model.get_submodule(tap.teacher)
            self.records.note_list(name, layer, student=False)
            for loss_name, loss in losses.items():
                if isinstance(loss, FeatureL2Loss) and loss.window is None:
                    loss.window = window_of_layer(layer, tap.record)
                if isinstance(loss, LSHLoss) and not loss.is_ready:
                    set_projection(loss_name, loss, layer, tap.record, steps)
        for name, loss in self.distill_losses.items():
            if isinstance(loss, LSHLoss) and not loss.is_ready:
                entries = self.loss_forward_mappings.get(name, {}).values()
                layer, record = recorded_layer(
                    name, entries, self.teacher_recorders, model
                )
                set_projection(name, loss, layer, record)

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
        batch = Batch(data_samples, image, dict(rows or {}))
        self.records.check_long_form(self.loss_forward_mappings)
        compared = {}
        with ExitStack() as step:
            for module in self.distill_losses.values():
                if isinstance(module, LSHLoss):
                    step.enter_context(module.one_step())
            values = super().compute_distill_losses()  # of the long form
            for name in self.taps:
                levels = self.pairs.of(name, batch.rows.get(name))
                weights = self.weights.of(name, levels, batch)
                compared[name] = TapObservation(levels, weights)
                one_set = self.records.is_one_set(name)
                for loss in self.losses_of(name):
                    values[loss] = loss_over_levels(
                        self.distill_losses[loss], levels, weights, one_set
                    )
        if self.strength < 1:
            values = {k: v * self.strength for k, v in values.items()}
        for observe in self.observers:
            observe(values, compared)
        self.records.empty()
        return values

    def leave_nothing(self) -> None:
        """Let go of what is left of mimicking, once it has stopped.

        That is what was recorded, and in the log the last values, which would
        stand there as if they were still measured.
        """
        self.records.empty()
        logged = MessageHub.get_current_instance().log_scalars
        ours = tuple(f'train/{x}.' for x in ('distill', *self.taps))
        for key in [x for x in logged if x.startswith(ours)]:
            del logged[key]

    def uncalibrated(self) -> dict[str, LSHLoss]:
        """Losses that wait for the teacher's features, by name."""
        return {
            name: loss
            for name, loss in self.distill_losses.items()
            if isinstance(loss, LSHLoss) and loss.needs_calibration
        }

    def teacher_levels(self, loss: str) -> list[int]:
        """Ascending indices of the teacher's features that a loss compares."""
        return [x.t_index for x in self.pairs.of(self.tap_of(loss), None)]

    def teacher_samples(
        self,
        loss: str,
        levels: Sequence[int],
        size: int,
        inside: Callable[[Tensor], Tensor],
    ) -> Iterator[Tensor]:
        """What the hash functions of a loss see of the teacher's own maps.

        Args:
            loss (str): Name of an :class:`LSHLoss` at a tap.
            levels (list[int]): Which of the teacher's features count.
            size (int): How many samples are given at a time.
            inside (Callable): Which samples of a feature count.

        Yields:
            Tensor: Samples, float32 or better, (at most ``size``, D).
        """
        tap = self.tap_of(loss)
        weight = self.distill_losses[loss].weight
        features = self.connected.of_teacher(tap)
        for feature in (features[x] for x in levels):
            if feature.numel():
                feature = feature.to(
                    torch.promote_types(feature.dtype, weight.dtype)
                )
                if self.taps[tap].normalize:
                    feature = feature / root_mean_square(feature)
                if feature.dim() == 3:
                    feature = feature.flatten(0, 1)
                yield from samples_of(feature, weight, inside(feature), size)

    def losses_of(self, tap: str) -> list[str]:
        """Names of the losses at a tap."""
        return self._tap_losses[tap]

    def tap_of(self, loss: str) -> str:
        """Name of the tap that a loss is at.

        Raises:
            ConfigError: If it is a loss of the long form.
        """
        for tap, losses in self._tap_losses.items():
            if loss in losses:
                return tap
        raise ConfigError(
            f'{loss}: only a loss at a tap can be calibrated; use taps, or '
            f"bias='zero' and a std other than 'features'"
        )

    def weight_keys(self) -> dict[str, str]:
        """Name of a loss -> key of its weight in the distiller's config."""
        keys = {
            x: f'distill_losses.{x}.loss_weight' for x in self.distill_losses
        }
        for tap, losses in self._tap_losses.items():
            for index, name in enumerate(losses):
                keys[name] = f'losses.{tap}.{index}.loss_weight'
        return keys
