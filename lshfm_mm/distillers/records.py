"""What the recorders of both models hold of a batch.

Beside those of the config there are recorders of ours: of each tap, of the
labels that the student's own loss gets there, of the teacher's logits, of the
places of tokens, and of the student's RoIs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmrazor.models.task_modules import RecorderManager
from mmrazor.models.task_modules.recorder import ModuleInputsRecorder
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import ConfigError
from .taps import GridRecorder, LabelsRecorder, Tap


class Pool(NamedTuple):
    """Where a two-stage detector pools RoIs, for boxes or for masks."""

    kind: str  # 'bbox' or 'mask'
    stage: int | None  # of a cascade


class Records:
    """The records of a batch, by the tap that they are of.

    Args:
        taps (dict[str, Tap]): The taps.
        student (RecorderManager): Recorders on the student.
        teacher (RecorderManager): Recorders on the teacher.

    Attributes:
        on_rois (set[str]): Taps on what runs on the student's RoIs. Samplers
            may run a box head before the student does: there the last call
            counts.
        pools (list[Pool]): Where the student's RoIs are recorded.
    """

    def __init__(
        self,
        taps: Mapping[str, Tap],
        student: RecorderManager,
        teacher: RecorderManager,
    ) -> None:
        self.taps = taps
        self.student = student
        self.teacher = teacher
        self.on_rois: set[str] = set()
        self.pools: list[Pool] = []
        self._lists: dict[tuple[str, bool], int] = {}  # how long they are

    def record_labels(self, tap: str, source: str) -> None:
        """Record what a loss module of the student, ``source``, gets."""
        self.student.recorders[_labels(tap)] = LabelsRecorder(source)

    def note_list(
        self, tap: str, layer: nn.Module, student: bool = True
    ) -> None:
        """Note how many layers a tap stands for in a model, if many."""
        if isinstance(layer, nn.ModuleList):
            self._lists[tap, student] = len(layer)

    def record_grid(self, tap: str, source: str, student: bool) -> None:
        """Record the places of tokens, of a model's layer ``source``."""
        manager = self.student if student else self.teacher
        manager.recorders[_grid(tap)] = GridRecorder(source)

    def grids(self, tap: str, student: bool) -> list[tuple[int, int]]:
        """Height and width of each level of tokens at a tap."""
        return self.calls(_grid(tap), student)

    def calls(self, recorder: str, student: bool = True) -> list[Any]:
        """What a recorder on a model holds, of each call of its layer.

        The recorder of a tap has the tap's name; of one that is not there
        there are no calls.
        """
        manager = self.student if student else self.teacher
        if recorder not in manager.recorders:
            return []
        calls = manager.get_recorder(recorder).data_buffer
        return calls[-1:] if recorder in self.on_rois else calls

    def features(self, tap: str, student: bool = True) -> list[Tensor]:
        """Features of a model at a tap, as its layer had them.

        They are those of each call, and of each of its levels, however deep
        in lists and dicts; raises ConfigError if the layer got them by
        keyword alone, or if those of a list have not run once each.
        """
        features: list[Tensor] = []
        calls = self.calls(tap, student)
        number = self._lists.get((tap, student))
        if calls and number not in (None, len(calls)):
            raise ConfigError(
                f'taps.{tap}: the layer there is a list of {number}, which '
                f'gave {len(calls)} features; only one with a layer for each '
                f'level is a tap, else tap one of its layers'
            )
        for call in calls:
            if self.taps[tap].record == 'input':
                if not call:
                    raise ConfigError(
                        f'taps.{tap}: the model gives its layer the input by '
                        f'keyword, which no recorder sees; tap the output of '
                        f'the layer before it'
                    )
                call = call[0]
            tensors = [x for x in tree_leaves(call) if isinstance(x, Tensor)]
            maps = [x for x in tensors if x.is_floating_point()]
            if not maps:
                raise ConfigError(
                    f'taps.{tap}: the {self.taps[tap].record} of its layer is '
                    f'a {type(call).__name__} without features; tap a layer '
                    f'in it'
                )
            features += maps
        return features

    def labels(self, tap: str) -> list[tuple[Any, Any]]:
        """Labels and their weights in the student's loss, of each call."""
        return self.calls(_labels(tap))

    def logits(self, tap: str) -> list[Tensor]:
        """Output of the teacher's class layer at a tap, of each call."""
        return self.calls(logits_recorder(tap), student=False)

    def tap_of(self, recorder: str) -> Tap | None:
        """The tap that a recorder on the teacher is of, if it is of one."""
        names = dict(self.taps)
        names |= {logits_recorder(x): tap for x, tap in self.taps.items()}
        return names.get(recorder)

    def is_one_set(self, tap: str) -> bool:
        """Whether all levels are one set of samples.

        A layer that is called for each level has one, a layer that gives
        several maps at once as many as it has maps.
        """
        return len(self.calls(tap)) > 1

    def record_rois(self, model: nn.Module, pool: Pool) -> None:
        """Record the boxes that a RoI extractor of the student gets."""
        source = f'roi_head.{pool.kind}_roi_extractor'
        if pool.stage is not None:
            source += f'.{pool.stage}'
        recorder = ModuleInputsRecorder(source)
        recorder.initialize(model)
        self.student.recorders[_rois(pool)] = recorder
        self.pools.append(pool)

    def rois(self, pool: Pool) -> Tensor | None:
        """The student's RoIs, (R, 5); None if a stage before left no box.

        Those of the last call count: samplers may have run the head before.
        """
        calls = self.calls(_rois(pool))
        return calls[-1][1] if calls else None

    @property
    def need_loss(self) -> bool:
        """Whether what is recorded comes with the student's own losses."""
        labels = (_labels(tap) in self.student.recorders for tap in self.taps)
        return bool(self.pools) or any(labels)

    def empty(self) -> None:
        """Let go of features, or they outlive the step with their graph."""
        for manager in (self.student, self.teacher):
            for recorder in manager.recorders.values():
                recorder.reset_data_buffer()

    def check_long_form(self, mappings: Mapping[str, Mapping]) -> None:
        """Raise if a recorder in ``loss_forward_mappings`` saw nothing."""
        for loss, arguments in mappings.items():
            for entry in arguments.values():
                student = entry['from_student']
                if not self.calls(entry['recorder'], student):
                    raise ConfigError(
                        f'loss_forward_mappings.{loss}: the recorder '
                        f'{entry["recorder"]!r} of the '
                        f'{"student" if student else "teacher"} has seen '
                        f'nothing, its layer does not run in training; '
                        f'record one that does'
                    )

    def compared(self, entries: Sequence[Mapping]) -> list[Tensor]:
        """The student's tensors that ``loss_forward_mappings`` give a loss."""
        calls = [
            self.calls(x['recorder']) for x in entries if x['from_student']
        ]
        return [x for x in tree_leaves(calls) if isinstance(x, Tensor)]


@contextmanager
def continued(manager: RecorderManager) -> Iterator[None]:
    """Record on, beside what is recorded already."""
    recorders = manager.recorders.values()
    before = [list(recorder.data_buffer) for recorder in recorders]
    with manager:
        for recorder, records in zip(recorders, before, strict=True):
            recorder.data_buffer.extend(records)
        yield


def logits_recorder(tap: str) -> str:
    """Name of the recorder of the teacher's logits at a tap."""
    return f'logits at {tap}'


def _rois(pool: Pool) -> str:
    return f'RoIs of {pool}'


def _grid(tap: str) -> str:
    return f'grid of {tap}'


def _labels(tap: str) -> str:
    return f'labels at {tap}'
