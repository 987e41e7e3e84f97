"""The audit: what is silently wrong is found before the first update.

It looks at the first batch of the training itself: no second forward pass,
no random number drawn, nothing changed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from terminaltables import AsciiTable
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..algorithms.student_weights import (
    describe_random,
    random_and_frozen,
    varied_weights,
)
from ..distillers.level_pairs import TapObservation
from ..distillers.taps import layers_of
from ..errors import ConfigError
from ..utils.listener import Listener
from .audit_checks import (
    LARGE,
    WAY_OUT,
    check_gradient,
    check_in_place,
    describe_tap,
    has_samples,
    is_same,
    note_versions,
    share_of_equal_codes,
    size_ratio,
)

PATIENCE = 50  # batches in which a loss may be without a sample


class Audit:
    """Audits the first batch, and prints one table.

    An error is a loss that is not computed, that is 0 whatever the student
    does, or that has no gradient to the student; a feature that a later layer
    overwrites in place after it was recorded; and a file that gives the
    student (almost) none of its weights. A loss whose tap has no
    sample in the first batch is looked at again in the following ones.
    Weights that are all 0 are taken for a wish: then a warning says that
    nothing mimics.

    Args:
        model (FeatureMimicDistill): The distillation; it is watched until
            all losses have been audited.
        strict (bool): Whether a fault is an error, or a warning. Defaults to
            True.

    Attributes:
        is_off (bool): Whether all weights are 0.
        waiting (set[str], optional): Losses that have not been audited; None
            before the first batch.

    Raises:
        ConfigError: If a file gives the student (almost) nothing.
    """

    def __init__(self, model: Any, strict: bool = True) -> None:
        self.strict = strict
        self.is_off = False
        self.waiting: set[str] | None = None
        self._model = model
        self._batches = 0
        self._taps: list[tuple[str, str]] = []
        self._losses: dict[str, str] = {}
        self._versions: list[tuple[str, Tensor, int]] = []
        self._of_batch: list[Any] = []  # handles
        self._watches = False
        self._observer = Listener(self._observe)
        for fault in model.student_faults:
            with self._faults():
                raise ConfigError(f'{fault}, {WAY_OUT}')
        model.distiller.observers.append(self._observer)
        self._of_model = [
            model.register_forward_pre_hook(Listener(self._begin)),
            model.register_forward_hook(Listener(self._end), always_call=True),
        ]

    @property
    def is_open(self) -> bool:
        """Whether there is a loss that has not been audited."""
        return self.waiting is None or bool(self.waiting)

    def _begin(self, model: Any, *args: Any) -> None:
        """Watch what is recorded in a forward pass."""
        mimics = model.training and not model.distillation_stopped
        self._watches = mimics and torch.is_grad_enabled()
        if not self._watches:
            return
        distiller = model.distiller
        for owner, network, manager in (
            ('student', model.student, distiller.student_recorders),
            ('teacher', model.teacher, distiller.teacher_recorders),
        ):
            layers = dict(network.named_modules())
            for name, recorder in manager.recorders.items():
                source, kind = recorder.source, type(recorder).__name__
                if source not in layers or not kind.startswith('Module'):
                    continue
                where = f'recorder {name!r} of the {owner}, at {source!r},'
                inputs = kind == 'ModuleInputsRecorder'
                self._of_batch += [
                    note_versions(layer, inputs, where, self._versions)
                    for layer in layers_of(layers[source])
                ]

    def _observe(
        self, values: dict[str, Tensor], compared: dict[str, TapObservation]
    ) -> None:
        """Audit the losses of a batch that wait for it."""
        if not self._watches:
            return
        with self._faults():
            check_in_place(self._versions)
        distiller = self._model.distiller
        modules = distiller.distill_losses
        for name in [x for x in modules if x not in values]:
            with self._faults():
                raise ConfigError(
                    f'distill_losses.{name}: is never computed; add it to '
                    f'loss_forward_mappings, remove it, {WAY_OUT}'
                )
        weights = {k: getattr(v, 'loss_weight', 1) for k, v in modules.items()}
        self.is_off = not any(weights.values())
        if self.waiting is None:
            self._look(compared)
        taps = {x: tap for tap in compared for x in distiller.losses_of(tap)}
        waiting = set(values) if self.waiting is None else self.waiting
        self.waiting = set()
        self._batches += 1
        for name in sorted(waiting):
            observation = compared.get(taps.get(name, ''))
            value, weight = values[name], weights[name]
            facts = f'weight {weight}, first value {value.item():.4g}'
            share = share_of_equal_codes(modules[name], observation)
            if share is not None:
                facts += f', {share:.1%} of the hash codes are equal'
            if not has_samples(observation) or not value.isfinite():
                facts += ', no sample yet' if value == 0 else ', NOT FINITE'
                self.waiting.add(name)
            elif not (self.is_off or is_same(observation) or share == 1):
                with self._faults():
                    self._check(name, value, weight, taps.get(name))
            self._losses[name] = facts
        if self._batches >= PATIENCE:
            for name in sorted(self.waiting):
                with self._faults():
                    raise ConfigError(
                        f'distill.{name}: has had no sample that counts, or '
                        f'no finite value, in {PATIENCE} batches; look at its '
                        f'tap, at the weights of its samples and at the '
                        f'annotations, {WAY_OUT}'
                    )
            self.waiting.clear()

    def _look(self, compared: Mapping[str, TapObservation]) -> None:
        """Note the taps; warn of what may be meant, and is seldom."""
        self._taps = [
            (f'tap {name}', describe_tap(self._model.distiller, name))
            for name in self._model.distiller.taps
        ]
        for name, observation in compared.items():
            ratio = size_ratio(observation)
            if ratio is not None and ratio > LARGE:
                _warn(
                    f'taps.{name}: the features of the student are '
                    f'{ratio:.3g} times as large as those of the teacher, so '
                    f'that an L2 sees nothing but their size; look at the '
                    f'weights and at the normalisation of both'
                )
        if self.is_off:
            _warn(
                'distill_losses: all weights are 0, so nothing mimics: this '
                'is plain training'
            )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Raise a fault, or warn of it."""
        try:
            yield
        except ConfigError as error:
            if self.strict:
                raise
            _warn(f'audit: {error}')

    def _end(self, model: Any, args: Any, losses: Any) -> None:
        """Report after the first batch; leave when all is audited."""
        if not self._watches:
            return
        self._let_go(self._of_batch)
        self._versions.clear()
        if not isinstance(losses, Mapping):  # it has failed, or is no step
            return
        if self._batches == 1:
            self._report(losses)
        if not self.is_open:
            self._let_go(self._of_model)
            model.distiller.observers.remove(self._observer)

    @staticmethod
    def _let_go(handles: list[Any]) -> None:
        while handles:
            handles.pop().remove()

    def _report(self, losses: Mapping[str, Any]) -> None:
        """Print the table."""
        model = self._model
        random, origins = model.student_random, [*model.student_origins]
        if random:
            origins.append(describe_random(model.student, random))
        rows = [
            ('audit', 'what there is before the first update'),
            *((x.settings.label, x.origin) for x in model.teachers.values()),
            ('student', '\n'.join(origins)),
            *self._taps,
            *((f'distill.{k}', v) for k, v in self._losses.items()),
        ]
        for name, loss in losses.items():
            if 'loss' in name and name.startswith('student.'):
                value = torch.stack(
                    [x.mean() for x in tree_leaves(loss)]
                ).sum()
                rows.append((name, f'first value {value.item():.4g}'))
        table = AsciiTable(rows)
        table.inner_row_border = False
        print_log(f'\n{table.table}', 'current')
        backbone = [
            x
            for x in varied_weights(model.student)
            if x.startswith('backbone.')
        ]
        if backbone and {*backbone} <= {*random}:
            _warn(
                'student: no file gave its backbone a weight, it starts at '
                'random unless it fetches some itself, as timm does; where '
                'that is not meant, give its init_cfg or load_from; where '
                'there are no weights, a big backbone can teach it some '
                '(docs/small_data.md)'
            )
        if frozen := random_and_frozen(model.student, random, 'architecture'):
            _warn(frozen)

    def _check(
        self, name: str, value: Tensor, weight: float, tap: str | None
    ) -> None:
        """Raise unless a loss moves the student."""
        if weight == 0:
            raise ConfigError(
                f'distill.{name}: its loss_weight is 0, those of other losses '
                f'are not; give it a weight, remove the loss, {WAY_OUT}'
            )
        distiller = self._model.distiller
        entries = distiller.loss_forward_mappings.get(name, {})
        features = (
            distiller.records.features(tap)
            if tap is not None
            else distiller.records.compared([*entries.values()])
        )
        check_gradient(name, value, features)


def _warn(message: str) -> None:
    print_log(message, 'current', level=30)
