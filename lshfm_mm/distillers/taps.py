"""Taps: where features are taken, and what a config says of them."""

from collections.abc import Mapping, Sequence
from inspect import isclass, signature
from typing import Any, NamedTuple

from mmrazor.models.task_modules.recorder import ModuleOutputsRecorder
from mmrazor.registry import MODELS
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import ConfigError, check_arguments, check_choice, nearest
from ..teachers.settings import split_source
from ..utils.configs import stem

# Kinds of weights.
KINDS = (
    'uniform',
    'balanced',
    'positive',
    'confidence',
    'correct',
    'inside',
)
RECORDS = {'input': 'ModuleInputs', 'output': 'ModuleOutputs'}


class LabelsRecorder(ModuleOutputsRecorder):
    """Recorder of the labels and label weights that a loss module gets.

    They are the second and third parameter of mmdet's classification losses,
    whatever they are called, and given by position or by name; what is not
    given is None.
    """

    def prepare_from_model(self, model: nn.Module | None = None) -> None:
        """Attach to the module."""
        assert model is not None
        module = model.get_submodule(self.source)
        _, *names = (*signature(module.forward).parameters, '', '')
        self._names = names[:2]
        module.register_forward_hook(self._record, with_kwargs=True)

    def _record(
        self, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> None:
        if self.recording:
            given = signature(module.forward).bind(*args, **kwargs)
            labels = [given.arguments.get(x) for x in self._names]
            self.data_buffer.append(tuple(labels))


class GridRecorder(ModuleOutputsRecorder):
    """Recorder of the height and width of the maps that a layer gives."""

    def forward_hook(
        self, module: nn.Module, inputs: Any, outputs: Any
    ) -> None:
        """Note the size of each map, and let go of it."""
        if self.recording:
            self.data_buffer.extend(
                (x.shape[2], x.shape[3])
                for x in tree_leaves(outputs)
                if isinstance(x, Tensor) and x.dim() == 4
            )


class Tap(NamedTuple):
    """A place where the features of both models are taken."""

    student: str
    teacher: str
    record: str = 'input'
    normalize: bool = False
    weights: tuple[str, ...] = ('uniform',)

    @property
    def needs_logits(self) -> bool:
        """Whether the weights come from the teacher's class layer."""
        return not {'confidence', 'correct'}.isdisjoint(self.weights)

    @classmethod
    def parse(cls, name: str, tap: str | Mapping[str, Any]) -> 'Tap':
        """Read the config of a tap.

        Args:
            name (str): Name of the tap.
            tap (str | dict): The layer, by its name in both models, whose
                input is the feature. A list of layers, one for each level,
                is one layer, see :func:`layers_of`. Or a dict with

                - ``layer``, or ``student`` and ``teacher`` where the names
                  differ; of several teachers as ``teacher='a:neck'``;
                - ``record``: 'input' or 'output' of the layer;
                - ``normalize``: whether both features are divided by the
                  root mean square of the teacher's, level by level, so that
                  no level drowns the others; one below 1e-6 counts as 1;
                - ``weights`` of the samples: 'uniform' (the paper);
                  'balanced', half to the foreground and half to the
                  background; 'positive', what the student's own loss takes
                  for an object, as its box loss does; 'confidence', in
                  proportion to the teacher's best class score; 'correct',
                  images that the teacher
                  classifies correctly and no others (the paper's default for
                  single-label classification); 'inside', locations of maps
                  whose centre lies inside their image, so that the padding
                  of the batch does not count. 'confidence' and 'correct'
                  need the input of a class layer. A list, as in
                  ``['inside', 'balanced']``, asks for all of its kinds.

        Returns:
            Tap: The tap.

        Raises:
            ConfigError: If a key is missing or unknown.
        """
        if not name.isidentifier() or hasattr(nn.ModuleDict, name):
            raise ConfigError(
                f'taps: {name!r} cannot be the name of a tap; take letters, '
                f'digits and _, and no method of nn.ModuleDict'
            )
        if isinstance(tap, str):
            return cls(tap, tap)
        if not isinstance(tap, Mapping):
            raise ConfigError(
                f'taps.{name}: must be the name of a layer or a dict, but '
                f'got {tap!r}'
            )
        layer = tap.get('layer')
        fields = {'student': layer, 'teacher': layer, **tap}
        fields.pop('layer', None)
        absent = None in (fields['student'], fields['teacher'])
        if absent or not fields.keys() <= {*cls._fields}:
            raise ConfigError(
                f'taps.{name}: needs layer, or student and teacher, and may '
                f'have record, normalize and weights, but got {dict(tap)}'
            )
        kinds = fields.pop('weights', 'uniform')
        kinds = kinds if isinstance(kinds, list | tuple) else (kinds,)
        parsed = cls(**fields, weights=tuple(kinds))
        check_choice(f'taps.{name}.record', parsed.record, [*RECORDS])
        check_choice(f'taps.{name}.normalize', parsed.normalize, [False, True])
        for kind in parsed.weights:
            check_choice(f'taps.{name}.weights', kind, KINDS)
        if parsed.needs_logits and parsed.record != 'input':
            raise ConfigError(
                f'taps.{name}.weights: {told(parsed.weights)} needs a tap on '
                f"the input of a class layer; use 'uniform'"
            )
        return parsed


def check_mappings(**fields: Any) -> None:
    """Raise unless arguments have the names of taps as keys, or are None."""
    for field, value in fields.items():
        if not isinstance(value or {}, Mapping):
            raise ConfigError(
                f'{field}: must be a dict with the names of taps as keys, but '
                f'got {value!r}'
            )


def named_losses(
    tap: str,
    weights: tuple[str, ...],
    losses: Sequence[dict] | None,
    taken: Mapping[str, Any],
) -> dict[str, dict]:
    """Name the losses of a tap ``loss_{tap}_{type}``, and number twins."""
    if not losses:
        raise ConfigError(
            f'losses: has none for the tap {tap!r}; add some or leave the '
            f'tap out of active'
        )
    named: dict[str, dict] = {}
    for loss in losses:
        _check_loss(tap, weights, loss)
        short = stem(loss['type']).removesuffix('Loss').lower()
        name, number = f'loss_{tap}_{short}', 2
        while name in named or name in taken:
            name, number = f'loss_{tap}_{short}{number}', number + 1
        named[name] = loss
    return named


def told(kinds: tuple[str, ...]) -> str:
    """Kinds of weights, for a message."""
    return ', '.join(map(repr, kinds))


def _check_loss(
    tap: str, weights: tuple[str, ...], loss: Mapping[str, Any]
) -> None:
    """Raise unless a loss takes what the tap gives and no more."""
    if not isinstance(loss, Mapping):
        raise ConfigError(
            f'losses.{tap}: must be a list of loss configs, but holds {loss!r}'
        )
    loss_type = loss.get('type')
    if not loss_type:
        raise ConfigError(
            f'losses.{tap}: {dict(loss)} has no type; add one, such as '
            f"type='LSHLoss'"
        )
    loss_class = find_class(loss_type)
    if loss_class is None:
        raise ConfigError(
            f'losses.{tap}: {loss_type!r} is not in the registry'
            f'{nearest(str(loss_type), MODELS.module_dict)}'
        )
    check_arguments(f'losses.{tap}', loss_class, loss)
    parameters = list(signature(loss_class.forward).parameters.values())[1:]
    needed = [x.name for x in parameters if x.default is x.empty]
    if len(needed) != 2:
        raise ConfigError(
            f'losses.{tap}: {stem(loss_type)} needs {needed}, but a tap gives '
            f"two features; use MMRazor's distill_losses for it"
        )
    if {*weights} != {'uniform'} and not takes_weights(loss_class):
        raise ConfigError(
            f'losses.{tap}: {stem(loss_type)} cannot weigh samples, and '
            f"taps.{tap}.weights is {told(weights)}; set it to 'uniform', or "
            f'take LSHLoss, FeatureL2Loss or RelativeL2Loss'
        )


def find_class(kind: Any) -> Any:
    """The class that a type is, or names in MMRazor's registry; or None."""
    return kind if isclass(kind) else MODELS.get(kind or '')


def takes_weights(loss_class: type[nn.Module]) -> bool:
    """Whether a loss has a ``sample_weight``, maybe as one of its kwargs."""
    for base in loss_class.__mro__:
        if 'forward' in vars(base):
            parameters = signature(vars(base)['forward']).parameters
            if 'sample_weight' in parameters:
                return True
            if all(x.kind != x.VAR_KEYWORD for x in parameters.values()):
                return False
    return False


def layers_of(layer: nn.Module) -> list[nn.Module]:
    """The layers that a tap on a layer stands for, which is itself.

    A ModuleList stands for its layers, one for each level; one that is a
    Sequential for the last of it, which gives the scores.
    """
    if not isinstance(layer, nn.ModuleList):
        return [layer]
    return [x[-1] if isinstance(x, nn.Sequential) else x for x in layer]


def widths_of(layer: nn.Module, record: str) -> list[int] | None:
    """Channels of a layer's 'input' or 'output', of each level.

    There is one where all levels are equally wide, and None where the layer
    does not tell.
    """
    if isinstance(layer, nn.ModuleList):
        parts = [width_of(x, record) for x in layers_of(layer)]
        return [x for x in parts if x is not None] if all(parts) else None
    end = 'in' if record == 'input' else 'out'
    for name in (f'{end}_features', f'{end}_channels'):
        widths = getattr(layer, name, None)
        if isinstance(widths, int):
            return [widths]
        if isinstance(widths, list | tuple):
            return list(widths)
    return None


def width_of(layer: nn.Module, record: str) -> int | None:
    """The one width of :func:`widths_of`, None where there are several."""
    return the_one(widths_of(layer, record))


def the_one(widths: Sequence[int] | None) -> int | None:
    """The width that all levels have; None where they differ."""
    return widths[0] if widths and len({*widths}) == 1 else None


def window_of_layer(layer: nn.Module, record: str) -> int:
    """Side of the window that a class layer sees of a map, else 1."""
    if isinstance(layer, nn.ModuleList):
        sides = {window_of_layer(x, record) for x in layers_of(layer)}
        return sides.pop() if len(sides) == 1 else 1
    if record != 'input' or not isinstance(layer, nn.Conv2d):
        return 1
    side = layer.kernel_size[0]
    keeps_size = layer.padding in ('same', (side // 2, side // 2))
    return side if keeps_size and layer.kernel_size == (side, side) else 1


def loss_layer(model: nn.Module, source: str) -> str | None:
    """Name of the ``loss_cls`` of the head that a layer belongs to."""
    parts = source.split('.')
    for end in range(len(parts) - 1, 0, -1):
        head = '.'.join(parts[:end])
        if isinstance(
            getattr(model.get_submodule(head), 'loss_cls', None), nn.Module
        ):
            return f'{head}.loss_cls'
    return None


def check_sources(owner: str, model: nn.Module, manager: Any) -> None:
    """Raise unless each module that a recorder names is in the model."""
    layers = dict(model.named_modules(remove_duplicate=False))
    names = [x for x in layers if x and not x.endswith(':')]
    teachers = {split_source(x)[0] for x in layers}
    for name, recorder in manager.recorders.items():
        if not isinstance(recorder, ModuleOutputsRecorder):
            continue
        source = recorder.source
        if '' not in teachers and split_source(source)[0] not in teachers:
            raise ConfigError(
                f'taps.{name}: there are the teachers {sorted(teachers)}, and '
                f'{source!r} is of none of them{nearest(source, names)}'
            )
        if source not in layers:
            raise ConfigError(
                f'taps.{name}: the {owner} has no layer {source!r}'
                f'{nearest(source, names)}'
            )


def find_sources(model: nn.Module, manager: Any) -> None:
    """Show the recorders their layers, which are in the model.

    Of a layer with several names MMRazor's recorders know the first alone,
    and a list of layers never runs: its layers do.
    """
    first = {layer: name for name, layer in model.named_modules()}
    for recorder in manager.recorders.values():
        if not isinstance(recorder, ModuleOutputsRecorder):
            continue
        layer = model.get_submodule(recorder.source)
        recorder._source = first[layer]
        if isinstance(layer, nn.ModuleList):
            for part in dict.fromkeys(layers_of(layer)):  # maybe one object
                part.register_forward_hook(recorder.forward_hook)
