"""The audit: what is silently wrong is found before the first update.

It looks at the first batch of the training itself: no second forward pass,
no random number drawn, nothing changed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from terminaltables import AsciiTable
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..algorithms.student_weights import varied_weights
from ..distillers.alignment import equal_codes
from ..distillers.level_pairs import TapObservation
from ..distillers.lshfm_distiller import LSHFMDistiller
from ..errors import ConfigError
from ..losses.lsh import LSHLoss
from ..utils.listener import Listener
from .gradient_balance import SCALE

WAY_OUT = 'or set FirstBatchAuditHook.strict=False to be warned alone'
PATIENCE = 50  # batches in which a loss may be without a sample


class Audit:
    """Audits the first batch, and prints one table.

    An error is a loss that is not computed, that is 0 whatever the student
    does, or that has no gradient to the student; and a feature that a later
    layer overwrites in place after it was recorded. A loss whose tap has no
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
    """

    def __init__(self, model: Any, strict: bool = True) -> None:
        self.strict = strict
        self.is_off = False
        self._model = model
        self._batches = 0
        self._waiting: set[str] | None = None
        self._taps: list[tuple[str, str]] = []
        self._losses: dict[str, str] = {}
        self._versions: list[tuple[str, Tensor, int]] = []
        self._of_batch: list[Any] = []  # handles
        self._watches = False
        self._observer = Listener(self._observe)
        model.distiller.observers.append(self._observer)
        self._of_model = [
            model.register_forward_pre_hook(Listener(self._begin)),
            model.register_forward_hook(Listener(self._end)),
        ]

    @property
    def is_open(self) -> bool:
        """Whether there is a loss that has not been audited."""
        return self._waiting is None or bool(self._waiting)

    @property
    def open_losses(self) -> list[str]:
        """Names of the losses that have not been audited."""
        return sorted(self._waiting or [])

    def _begin(self, model: Any, *args: Any) -> None:
        """Watch what is recorded in a forward pass."""
        self._watches = model.training and torch.is_grad_enabled()
        if not self._watches:
            return
        distiller = model.distiller
        for owner, network, manager in (
            ('student', model.student, distiller.student_recorders),
            ('teacher', model.teacher, distiller.teacher_recorders),
        ):
            layers = dict(network.named_modules())
            for name, recorder in manager.recorders.items():
                kind = type(recorder).__name__
                if recorder.source in layers and kind.startswith('Module'):
                    self._of_batch.append(
                        _note_versions(
                            layers[recorder.source],
                            kind == 'ModuleInputsRecorder',
                            f'recorder {name!r} of the {owner}, at '
                            f'{recorder.source!r},',
                            self._versions,
                        )
                    )

    def _observe(
        self, values: dict[str, Tensor], compared: dict[str, TapObservation]
    ) -> None:
        if not self._watches:
            return
        try:
            _check_in_place(self._versions)
            self._audit(self._model.distiller, values, compared)
        except ConfigError as error:
            if self.strict:
                raise
            print_log(f'audit: {error}', 'current', level=30)
            self._waiting = set()

    def _end(self, model: Any, args: Any, losses: Mapping[str, Any]) -> None:
        """Report after the first batch; leave when all is audited."""
        if not self._watches:
            return
        self._let_go(self._of_batch)
        self._versions.clear()
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
        total = sum(1 for _ in varied_weights(model.student))
        random = f'random: all of its {total} weight matrices'
        tasks = {
            name: torch.stack([x.mean() for x in tree_leaves(value)])
            .sum()
            .item()
            for name, value in losses.items()
            if 'loss' in name and name.startswith('student.')
        }
        rows = [
            ('audit', 'what there is before the first update'),
            ('teacher', model.teacher_origin),
            ('student', '\n'.join(model.student_origins) or random),
            *self._taps,
            *((f'distill.{k}', v) for k, v in self._losses.items()),
            *((k, f'first value {v:.4g}') for k, v in tasks.items()),
        ]
        table = AsciiTable(rows)
        table.inner_row_border = False
        print_log(f'\n{table.table}', 'current')
        if not model.student_origins:
            print_log(
                'student: no file and no teacher gave it a weight, it starts '
                'at random; where that is not meant, give its init_cfg or '
                'load_from',
                'current',
                level=30,
            )

    def _audit(
        self,
        distiller: LSHFMDistiller,
        values: dict[str, Tensor],
        compared: dict[str, TapObservation],
    ) -> None:
        modules = distiller.distill_losses
        for name in modules:
            if name not in values:
                raise ConfigError(
                    f'distill_losses.{name}: is never computed; add it to '
                    f'loss_forward_mappings, remove it, {WAY_OUT}'
                )
        weights = {k: getattr(v, 'loss_weight', 1) for k, v in modules.items()}
        if self._batches == 0:
            self._taps = [
                (f'tap {name}', _describe_tap(distiller, name))
                for name in distiller.taps
            ]
            if not any(weights.values()):
                print_log(
                    'distill_losses: all weights are 0, so nothing mimics: '
                    'this is plain training',
                    'current',
                    level=30,
                )
        taps = {x: tap for tap in compared for x in distiller.losses_of(tap)}
        self.is_off = not any(weights.values())
        waiting = set(values) if self._waiting is None else self._waiting
        self._waiting = set()
        self._batches += 1
        for name in sorted(waiting):
            observation = compared.get(taps.get(name, ''))
            value = values[name]
            facts = f'weight {weights[name]}, first value {value.item():.4g}'
            share = _equal_codes(modules[name], observation)
            if share is not None:
                facts += f', {share:.1%} of the hash codes are equal'
            if not _has_samples(observation) or not value.isfinite():
                self._wait(name)
                facts += ', no sample yet' if value == 0 else ', NOT FINITE'
            elif not self.is_off and not _is_same(observation) and share != 1:
                if weights[name] == 0:
                    raise ConfigError(
                        f'distill.{name}: its loss_weight is 0, those of '
                        f'other losses are not; give it a weight, remove the '
                        f'loss, {WAY_OUT}'
                    )
                tap = taps.get(name)
                entries = distiller.loss_forward_mappings.get(name, {})
                features = (
                    distiller.records.features(tap)
                    if tap is not None
                    else distiller.records.compared([*entries.values()])
                )
                _check_gradient(name, value, features)
            self._losses[name] = facts

    def _wait(self, name: str) -> None:
        assert self._waiting is not None
        self._waiting.add(name)
        if self._batches >= PATIENCE:
            raise ConfigError(
                f'distill.{name}: has had no sample that counts, or no '
                f'finite value, in {PATIENCE} batches; look at its tap, at '
                f'the weights of its samples and at the annotations, '
                f'{WAY_OUT}'
            )


def _note_versions(
    layer: nn.Module,
    inputs: bool,
    where: str,
    versions: list[tuple[str, Tensor, int]],
) -> Any:
    """Note each tensor that a layer gets or gives, and its version."""

    def note(args: Any) -> None:
        for x in tree_leaves(args):
            if isinstance(x, Tensor) and not x.is_inference():
                versions.append((where, x, x._version))

    if inputs:
        return layer.register_forward_pre_hook(lambda _, args: note(args))
    return layer.register_forward_hook(lambda _, args, given: note(given))


def _check_in_place(versions: list[tuple[str, Tensor, int]]) -> None:
    for where, x, version in versions:
        if x._version != version:
            raise ConfigError(
                f'{where} holds a tensor that a layer overwrites in place '
                f'afterwards, so its values are those of that layer; record '
                f'the output of that layer, set its inplace=False, {WAY_OUT}'
            )


def _describe_tap(distiller: LSHFMDistiller, name: str) -> str:
    tap = distiller.taps[name]
    lines = []
    for owner, source in (('student', tap.student), ('teacher', tap.teacher)):
        features = distiller.records.features(name, owner == 'student')
        shapes = ', '.join(str(tuple(x.shape)) for x in features)
        dtypes = {str(x.dtype).removeprefix('torch.') for x in features}
        lines.append(
            f'{owner}: {tap.record} of {source}, {shapes or "not run"} '
            f'{"/".join(sorted(dtypes))}'
        )
    return '\n'.join(lines)


def _equal_codes(
    loss: nn.Module, compared: TapObservation | None
) -> float | None:
    """Share of hash codes that agree, None if there are none."""
    if not isinstance(loss, LSHLoss) or compared is None:
        return None
    shares = [
        equal_codes(x.student, x.teacher, loss.weight, loss.bias, keep)
        for x, keep in zip(compared.levels, compared.masks(), strict=True)
        if x.student.numel()
    ]
    joined = torch.cat(shares) if shares else torch.zeros(0)
    return joined.mean().item() if len(joined) else None


def _has_samples(compared: TapObservation | None) -> bool:
    """Whether a tap has samples that count; the long form always does."""
    return compared is None or any(
        x.student.numel() > 0 and (keep is None or bool(keep.any()))
        for x, keep in zip(compared.levels, compared.masks(), strict=True)
    )


def _is_same(compared: TapObservation | None) -> bool:
    """Whether the student has the teacher's features already."""
    return compared is not None and all(
        torch.equal(x.student, x.teacher) for x in compared.levels
    )


def _check_gradient(name: str, value: Tensor, features: list[Tensor]) -> None:
    """Raise unless a loss has a gradient to what it compares."""
    features = [x for x in features if x.requires_grad]
    gradients: tuple[Tensor | None, ...] = ()
    if features and value.requires_grad:
        gradients = torch.autograd.grad(
            value,
            features,
            torch.full_like(value, SCALE),
            retain_graph=True,
            allow_unused=True,
        )
    if any(x is not None and bool((x != 0).any()) for x in gradients):
        return
    if value == 0:
        raise ConfigError(
            f'distill.{name}: is 0 although its tap has samples; look at its '
            f'type and its arguments, {WAY_OUT}'
        )
    raise ConfigError(
        f'distill.{name}: is {value.item():.4g} and has no gradient to the '
        f'student; what it taps must lie behind trained layers, so look at '
        f'student_trainable, frozen_stages and detached features, {WAY_OUT}'
    )
