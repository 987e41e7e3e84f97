"""The audit: what is silently wrong is found before the first update.

It looks at the first batch of the training itself: no second forward pass,
no random number drawn, nothing changed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from terminaltables import AsciiTable
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..distillers.alignment import equal_codes
from ..distillers.level_pairs import Seen
from ..distillers.lshfm_distiller import LSHFMDistiller
from ..errors import ConfigError
from ..losses.lsh import LSHLoss
from .gradient_balance import SCALE

WAY_OUT = 'or turn the audit off by model.audit=False'
PATIENCE = 50  # batches in which a loss may be without a sample
FEW = 0.1  # of a model's weights; a file that gives fewer is another model's


class Audit:
    """Audits the first batch, and prints one table.

    An error is a loss that is not computed, that is 0 whatever the student
    does, or that has no gradient to the student; a feature that a later
    layer overwrites in place after it was recorded; and a file that gives
    the student (almost) none of its weights. A loss whose tap has no sample
    in the first batch is looked at again in the following ones. Weights that
    are all 0 are taken for a wish: then a warning says that nothing mimics.

    Attributes:
        student (list[str]): Where the student's weights come from.
        is_off (bool): Whether all weights are 0.
    """

    def __init__(self) -> None:
        self.student: list[str] = []
        self._batches = 0
        self._waiting: set[str] | None = None
        self._taps: list[tuple[str, str]] = []
        self._losses: dict[str, str] = {}
        self.is_off = False

    @property
    def is_open(self) -> bool:
        """Whether there is a loss that has not been audited."""
        return self._waiting is None or bool(self._waiting)

    @property
    def open_losses(self) -> list[str]:
        """Names of the losses that have not been audited."""
        return sorted(self._waiting or [])

    @contextmanager
    def watching(
        self, distiller: LSHFMDistiller, student: nn.Module, teacher: nn.Module
    ) -> Iterator[None]:
        """Watch the forward pass of a batch.

        Args:
            distiller (LSHFMDistiller): The distiller.
            student (nn.Module): The student.
            teacher (nn.Module): The teacher.

        Raises:
            ConfigError: See the class.
        """
        versions: list[tuple[str, Tensor, int]] = []
        handles = []
        for owner, model, manager in (
            ('student', student, distiller.student_recorders),
            ('teacher', teacher, distiller.teacher_recorders),
        ):
            for name, recorder in manager.recorders.items():
                kind = type(recorder).__name__
                where = f'recorder {name!r} of the {owner}'
                layers = dict(model.named_modules())
                if recorder.source in layers and kind.startswith('Module'):
                    handles.append(
                        _note_versions(
                            layers[recorder.source],
                            kind == 'ModuleInputsRecorder',
                            f'{where}, at {recorder.source!r},',
                            versions,
                        )
                    )

        def observe(values: dict[str, Tensor], seen: dict[str, Seen]) -> None:
            _check_in_place(versions)
            self._audit(distiller, values, seen)

        distiller.observers.append(observe)
        try:
            yield
        finally:
            distiller.observers.remove(observe)
            for handle in handles:
                handle.remove()

    def report(
        self, losses: Mapping[str, Any], origin: str, student: nn.Module
    ) -> None:
        """Print the table after the first batch.

        Args:
            losses (dict): All losses of the batch.
            origin (str): Where the teacher's weights come from.
            student (nn.Module): The student.
        """
        if self._batches > 1:
            return
        total = sum(1 for _ in _weights(student))
        random = f'random: all of its {total} weights'
        tasks = {
            name: torch.stack([x.mean() for x in tree_leaves(value)])
            .sum()
            .item()
            for name, value in losses.items()
            if 'loss' in name and name.startswith('student.')
        }
        rows = [
            ('audit', 'what there is before the first update'),
            ('teacher', origin),
            ('student', '\n'.join(self.student) or random),
            *self._taps,
            *((f'distill.{k}', v) for k, v in self._losses.items()),
            *((k, f'first value {v:.4g}') for k, v in tasks.items()),
        ]
        table = AsciiTable(rows)
        table.inner_row_border = False
        print_log(f'\n{table.table}', 'current')
        if not self.student:
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
        seen: dict[str, Seen],
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
        taps = {x: tap for tap in seen for x in distiller.losses_of(tap)}
        self.is_off = not any(weights.values())
        waiting = set(values) if self._waiting is None else self._waiting
        self._waiting = set()
        self._batches += 1
        for name in sorted(waiting):
            found = seen.get(taps.get(name, ''))
            value = values[name]
            facts = f'weight {weights[name]}, first value {value.item():.4g}'
            share = _equal_codes(modules[name], found)
            if share is not None:
                facts += f', {share:.1%} of the hash codes are equal'
            if not _has_samples(found) or not value.isfinite():
                self._wait(name)
                facts += ', no sample yet' if value == 0 else ', NOT FINITE'
            elif not self.is_off and not _is_same(found) and share != 1:
                if weights[name] == 0:
                    raise ConfigError(
                        f'distill.{name}: its loss_weight is 0, those of '
                        f'other losses are not; give it a weight, remove the '
                        f'loss, {WAY_OUT}'
                    )
                tap = taps.get(name)
                features = (
                    distiller.recorded(tap, student=True)
                    if tap is not None
                    else distiller.compared(name)
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


def weights_from_files(student: nn.Module) -> list[str]:
    """Where the weights of a model come from: its pretrained files.

    Compared are values, not names: some backbones rename what they load.

    Args:
        student (nn.Module): The model, initialised.

    Returns:
        list[str]: A line for each file.

    Raises:
        ConfigError: If the model has (almost) none of a file's weights.
    """
    lines: list[str] = []
    done: list[str] = []  # a file of the whole comes after those of parts
    for name, module in student.named_modules():
        cfgs = getattr(module, 'init_cfg', None) or []
        for cfg in [cfgs] if isinstance(cfgs, Mapping) else cfgs:
            if cfg.get('type') != 'Pretrained' or any(
                not x or f'{name}.'.startswith(f'{x}.') for x in done
            ):
                continue
            done.append(name)
            path = cfg['checkpoint']
            content = CheckpointLoader.load_checkpoint(path, 'cpu')
            given: dict[torch.Size, list[Tensor]] = {}
            for value in tree_leaves(content.get('state_dict', content)):
                if isinstance(value, Tensor):
                    given.setdefault(value.shape, []).append(value)
            own = [x.cpu() for x in _weights(module)]
            held = sum(
                any(torch.equal(x, y.to(x.dtype)) for y in given[shape])
                for x in own
                if (shape := x.shape) in given
            )
            field = f'{name}.init_cfg'.lstrip('.')
            if held < FEW * len(own):
                raise ConfigError(
                    f'architecture.{field}: {path} gave {held} of its '
                    f'{len(own)} weights, the student would start from '
                    f'scratch; give the file of this very network, {WAY_OUT}'
                )
            lines.append(f'{field}: {held} of {len(own)} weights from {path}')
    return lines


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Parameters that are no constants at the start, as biases and BN are."""
    return (x.detach() for x in module.parameters() if x.dim() > 1)


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
        features = distiller.recorded(name, owner == 'student')
        shapes = ', '.join(str(tuple(x.shape)) for x in features)
        dtypes = {str(x.dtype).removeprefix('torch.') for x in features}
        lines.append(
            f'{owner}: {tap.record} of {source}, {shapes or "not run"} '
            f'{"/".join(sorted(dtypes))}'
        )
    return '\n'.join(lines)


def _equal_codes(loss: nn.Module, seen: Seen | None) -> float | None:
    """Share of hash codes that agree, None if there are none."""
    if not isinstance(loss, LSHLoss) or seen is None:
        return None
    shares = [
        equal_codes(x.student, x.teacher, loss.weight, loss.bias, keep)
        for x, keep in zip(seen.levels, seen.counting(), strict=True)
        if x.student.numel()
    ]
    joined = torch.cat(shares) if shares else torch.zeros(0)
    return joined.mean().item() if len(joined) else None


def _has_samples(seen: Seen | None) -> bool:
    """Whether a tap has samples that count; the long form always does."""
    return seen is None or any(
        x.student.numel() > 0 and (keep is None or bool(keep.any()))
        for x, keep in zip(seen.levels, seen.counting(), strict=True)
    )


def _is_same(seen: Seen | None) -> bool:
    """Whether the student has the teacher's features already."""
    return seen is not None and all(
        torch.equal(x.student, x.teacher) for x in seen.levels
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
