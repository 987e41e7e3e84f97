"""Where a student mimics a teacher, and by which losses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from ..distillers.connected import pair_by_size
from ..distillers.level_pairs import pair_by_shape
from ..distillers.taps import width_of, widths_of, window_of_layer
from ..distillers.widths import connector_config
from ..errors import ConfigError, check_choice
from ..utils.choices import TAPS
from .inspect import Layer, View

MAX_HASHES = 4096
PAPER_WEIGHT = 7  # of detectors
# As chosen in docs/results.md; other taps have 1.
LAYER_WEIGHT = 4  # on RoIs and class towers
POOLED_WEIGHT = 6  # the paper's for CIFAR-100, too
CWD_WEIGHT = 160  # of detectors with a dense head
CWD_RCNN = 10  # its weight where there are RoIs
CWD_MAX_NORM = 35  # of gradients, as in the study; without it has blown up
ENOUGH_HASHES = 1024  # where half as many as entries are fewer
MAPS = ('fpn', 'dense')  # what CWD compares, the better tap first


class Pairing(NamedTuple):
    """A tap that two models have in common."""

    why: str
    taps: dict[str, str]
    connectors: dict[str, str]
    losses: dict[str, list[str]]
    hashes: str = '4 hashes per channel'  # of LSHLoss
    algorithm: str = 'FeatureMimicDistill'
    teacher_connectors: Mapping[str, str] = {}


class _NoPair(Exception):
    """Why two models cannot mimic at a tap."""


def choose_pairing(
    student: View,
    teacher: View,
    tap: str | None,
    loss: str,
    beta: float | None,
    inherit: bool,
) -> Pairing:
    """Choose where a student mimics a teacher; see ``write_config``.

    Args:
        student (View): The student.
        teacher (View): The teacher.
        tap (str, optional): Where, one of ``CHOICES``. Defaults to the first
            that both have, and what is better than it.
        loss (str): One of ``LOSSES``.
        beta (float, optional): Weight of the losses. Defaults to the study's.
        inherit (bool): Whether the student starts from the teacher's head.

    Raises:
        ConfigError: If the models have no such tap in common.
    """
    if tap is not None:
        check_choice('tap', tap, TAPS)
    default = dict.fromkeys(('roi', 'dense'), LAYER_WEIGHT)
    if loss != 'recommended':
        default = dict.fromkeys(CHOICES, PAPER_WEIGHT)
    if loss == 'cwd':
        default = dict.fromkeys(MAPS, CWD_RCNN if student.rois else CWD_WEIGHT)
    if loss == 'recommended' or student.one_label:
        default['pooled'] = POOLED_WEIGHT
    else:  # the paper's are smaller, and differ
        default['pooled'] = 1
    reasons = []
    order = MAPS if loss == 'cwd' else CHOICES
    for name in order if tap is None else (tap,):
        weight = default.get(name, 1) if beta is None else beta
        try:
            if loss == 'cwd' and name not in MAPS:
                raise _NoPair(f'CWD compares maps, those of {MAPS}')
            pairing = CHOICES[name](student, teacher, loss, weight)
        except _NoPair as reason:
            reasons.append(f'{name}: {reason}')
            continue
        if loss != 'recommended' or tap not in (None, 'fpn'):
            return pairing
        if name == 'roi':
            return _beside_rois(pairing, student, teacher, weight)
        if inherit and student.is_dense and teacher.is_dense:
            return _better_by_cwd(pairing, student, teacher, beta)
        return pairing
    raise ConfigError(
        f'tap: {student.kind} and {teacher.kind} cannot be paired '
        f'({"; ".join(reasons)}); take another tap or pair'
    )


def _both(student: View, teacher: View, part: str, what: str) -> list[Any]:
    """A part of both views; no pair where one lacks it."""
    for view in (student, teacher):
        if not getattr(view, part):
            raise _NoPair(f'{view.kind} has no {what}')
    return [getattr(student, part), getattr(teacher, part)]


def _pair_rois(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing:
    layers = _both(student, teacher, 'rois', 'class layer that reads RoIs')
    stages = list(zip(*layers, strict=False))
    why = "both classify RoIs: the teacher pools the student's"
    taps, connectors, losses = {}, {}, {}
    for index, ((ours, our_fc), (theirs, their_fc)) in enumerate(stages):
        name = 'roi' if len(stages) == 1 else f'roi{index}'
        if loss == 'recommended' and our_fc and their_fc:
            # The better tap (docs/results.md), if it needs no connector.
            if our_fc.width == their_fc.width:
                ours, theirs = our_fc, their_fc
            else:
                why += f'; not at {our_fc.name}, which differs in width'
        taps[name] = _tap(ours, theirs)
        connectors.update(_connector(name, ours, theirs))
        losses[name] = _losses(loss, weight)
    return Pairing(why, taps, connectors, losses, algorithm='RoIMimicDistill')


def _beside_rois(
    pairing: Pairing, student: View, teacher: View, weight: float
) -> Pairing:
    """L2 on the necks, too, where these give maps of the same shapes.

    Half of it is on objects (docs/results.md).
    """
    ours, theirs = (v.neck and v.neck.shapes for v in (student, teacher))
    if not ours or ours != theirs:
        why = f'{pairing.why}; without L2 on the necks, which differ in shape'
        return pairing._replace(why=why)
    tap = "dict(layer='neck', record='output', weights='balanced')"
    l2 = {'fpn': _losses('relative', weight / LAYER_WEIGHT)}
    return pairing._replace(
        why=f'{pairing.why}; with L2 on the necks, half of it on objects',
        taps=pairing.taps | {'fpn': tap},
        losses=pairing.losses | l2,
    )


def _better_by_cwd(
    pairing: Pairing, student: View, teacher: View, beta: float | None
) -> Pairing:
    """CWD on the necks, the best loss for an inherited head that is dense."""
    weight = CWD_WEIGHT if beta is None else beta
    try:
        found = _pair_necks(student, teacher, 'cwd', weight)
    except _NoPair:
        return pairing
    why = f'{found.why}; CWD there serves an inherited dense head best'
    return found._replace(why=why)


def _pair_dense(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing:
    what = 'class layer for all levels or for each'
    layers = ours, theirs = _both(student, teacher, 'dense', what)
    if ours.sizes != theirs.sizes:
        raise _NoPair(f'levels differ, {ours.strides} and {theirs.strides}')
    windows = [window_of_layer(layer.module, 'input') for layer in layers]
    if windows[0] != windows[1]:
        raise _NoPair(f'windows differ, {windows[0]} and {windows[1]}')
    widths = [widths_of(layer.module, 'input') for layer in layers]
    if ours.width is None or theirs.width is None:
        raise _NoPair(
            f'widths change from level to level, {widths[0]} and {widths[1]}'
        )
    channels, side = theirs.width, windows[1]
    entries = channels * side**2
    each = ''
    if isinstance(ours.module, nn.ModuleList):
        each = ', by a layer each'
    hashes = min(4 * entries, MAX_HASHES)  # the paper's
    if loss == 'recommended':  # of a wide window fewer did as well
        hashes = min(hashes, max(entries // 2, ENOUGH_HASHES))
    return Pairing(
        f'both classify the locations of strides {ours.strides}{each}',
        {'cls': _tap(ours, theirs)},
        _connector('cls', ours, theirs),
        {'cls': _losses(loss, weight, hashes=hashes)},
        f'{hashes / entries:.2g} hashes per entry of the {side} x {side} '
        f'window of {channels} channels',
    )


def _pair_necks(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing:
    ours, theirs = _both(student, teacher, 'neck', 'neck that gives maps')
    pairs = pair_by_shape(ours.sizes, theirs.sizes)
    if pairs:
        strides = [ours.strides[x] for x, _ in pairs]
        why = f'the necks have strides {strides} in common'
        return _pair_levels('fpn', (ours, theirs), why, pairs, loss, weight)
    pairs = pair_by_size(ours.sizes, theirs.sizes)
    strides = [(ours.strides[x], theirs.strides[y]) for x, y in pairs]
    finer = 'student' if strides[0][0] < strides[0][1] else 'teacher'
    why = (
        f'the necks have no stride in common, and maps of the {finer}, which '
        f'are finer, go to the grid of the other: strides {strides}'
    )
    pairing = _pair_levels('fpn', (ours, theirs), why, pairs, loss, weight)
    steps = {'fpn': "dict(type='ResampleConnector')"}
    if finer == 'teacher':
        return pairing._replace(teacher_connectors=steps)
    for name, connector in pairing.connectors.items():
        steps[name] = f'[{steps[name]}, {connector}]'
    return pairing._replace(connectors=steps)


def _pair_memories(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing:
    ours, theirs = _both(student, teacher, 'memory', "DETR's encoder")
    pairs = pair_by_shape(ours.sizes, theirs.sizes)
    if not pairs:
        raise _NoPair(f'strides differ, {ours.strides} and {theirs.strides}')
    why = (
        f'the encoders see strides {[ours.strides[x] for x, _ in pairs]}; '
        f'queries, which do not match one by one, are left alone'
    )
    layers = ours, theirs
    pairing = _pair_levels('memory', layers, why, pairs, loss, weight)
    tokens = "dict(type='TokensToMap')"
    tap = pairing.taps['memory'].replace(')', ", weights='inside')")
    connectors = {'memory': tokens}
    for name, connector in pairing.connectors.items():
        connectors[name] = f'[{tokens}, {connector}]'
    return pairing._replace(
        taps={'memory': tap},
        connectors=connectors,
        teacher_connectors={'memory': tokens},
    )


def _pair_levels(
    tap: str,
    layers: tuple[Layer, Layer],
    why: str,
    pairs: Sequence[tuple[int, int]],
    loss: str,
    weight: float,
) -> Pairing:
    """Pair levels of two layers of one name, student's and teacher's."""
    channels = [[x[1] for x in layer.shapes] for layer in layers]
    partners = dict(pairs)
    widths: list[list[int | None]] = [
        [x if i in partners else None for i, x in enumerate(channels[0])],
        [
            channels[1][partners[i]] if i in partners else None
            for i in range(len(channels[0]))
        ],
    ]
    distinct = [{*x} - {None} for x in widths]
    connectors, note, dim = {}, '', None
    if len(distinct[0]) == len(distinct[1]) == 1:
        dim = next(iter(distinct[1]))
        widths = [[*x] for x in distinct]
    elif loss not in ('recommended', 'cwd', 'l2'):
        raise _NoPair(
            f'widths change from level to level, {widths[0]} and {widths[1]}, '
            f'which no LSH serves'
        )
    else:
        loss = 'relative' if loss == 'recommended' else loss
        note = '; without LSH, since widths change from level to level'
    # CWD takes a softmax of each channel, whose sharpness is the teacher's.
    normalize = '' if loss == 'cwd' else ', normalize=True'
    if widths[0] != widths[1]:
        connectors[tap] = connector_config(nn.Conv2d(1, 1, 1), *widths)
    return Pairing(
        why + note,
        {tap: f"dict(layer={layers[0].name!r}, record='output'{normalize})"},
        connectors,
        {tap: _losses(loss, weight, dim=dim)},
    )


def _pair_pooled(
    student: View, teacher: View, loss: str, weight: float
) -> Pairing:
    ours, theirs = _both(student, teacher, 'pooled', 'linear classifier')
    tap, why = _tap(ours, theirs), 'both classify a pooled feature'
    classes = [width_of(x.module, 'output') for x in (ours, theirs)]
    if loss == 'lshl2' and student.one_label and classes[0] == classes[1]:
        names = f'student={ours.name!r}, teacher={theirs.name!r}'
        tap = f"dict({names}, weights='correct')"
        why += ', of which those count that the teacher gets right'
    if loss == 'recommended' and student.one_label is False:
        loss = 'lsh'
        why += ', and with several labels L2 did not help'
    return Pairing(
        why,
        {'pooled': tap},
        _connector('pooled', ours, theirs),
        {'pooled': _losses(loss, weight)},
    )


CHOICES = dict(
    zip(
        TAPS,
        (_pair_rois, _pair_dense, _pair_memories, _pair_necks, _pair_pooled),
        strict=True,
    )
)


def _tap(ours: Layer, theirs: Layer) -> str:
    if ours.name == theirs.name:
        return repr(ours.name)
    return f'dict(student={ours.name!r}, teacher={theirs.name!r})'


def _connector(name: str, ours: Layer, theirs: Layer) -> dict[str, str]:
    if ours.width == theirs.width:
        return {}
    widths = [ours.width], [theirs.width]
    return {name: connector_config(theirs.module, *widths)}


def _losses(
    loss: str, weight: float, hashes: int | None = None, dim: int | None = None
) -> list[str]:
    """Configs of the losses at a tap, as code."""
    lsh = ["type='LSHLoss'"]
    if hashes is not None:
        lsh.append(f'num_hashes={hashes}')
    if dim is not None:  # normalised maps: projections of variance 1
        lsh += [f'feature_dim={dim}', f'std={dim**-0.5:.4g}']
    kinds = {
        'recommended': [lsh, ["type='RelativeL2Loss'"]],
        'relative': [["type='RelativeL2Loss'"]],
        'lshl2': [lsh, ["type='FeatureL2Loss'"]],
        'lsh': [lsh],
        'l2': [["type='FeatureL2Loss'"]],
        'cwd': [["type='ChannelWiseDivergence'"]],
    }
    scale = [] if weight == 1 else [f'loss_weight={weight:g}']
    return [f'dict({", ".join(kind + scale)})' for kind in kinds[loss]]
