"""Rounds of the arms of a model, all of them in each."""

import statistics
from pathlib import Path
from typing import Any

from arms import Arm, build_arms, checkpoint_sizes
from batches import raw_batch
from clock import Meter, ratio_to
from mmdet.utils import register_all_modules
from parts import Parts
from tqdm import tqdm

WARM_UP = {'cpu': 1, 'cuda': 3}  # rounds; a GPU's algorithms are searched
PARTS = ('pyramid', 'head', 'products', 'loss')
Runs = dict[str, dict[str, list[float]]]  # arm -> what -> seconds


def time_model(
    model: str, options: Any, folder: Path
) -> dict[str, dict[str, Any]]:
    """All arms of a model: time, memory and files."""
    register_all_modules(init_default_scope=True)
    arms = build_arms(model, options, folder)
    batch, meter = raw_batch(model, options), Meter(options.device)
    found: dict[str, dict[str, Any]] = {}
    for name, arm in arms.items():
        arm.step(batch, 0)  # the optimiser's state is there after it
        peak = meter.peak(lambda a=arm: a.step(batch, 0))
        found[name] = dict(
            peak=peak + arm.resident(),
            rois=dict(arm.rois),
            **checkpoint_sizes(arm, folder),
        )
    runs = time_rounds(model, arms, batch, meter, options.rounds)
    plain = runs['student alone']
    for name, times in runs.items():
        entry = found[name]
        entry['seconds'] = {k: statistics.median(v) for k, v in times.items()}
        entry['ratio'] = ratio_to(times['step'], plain['step'])
        if 'pyramid' in times:
            needed = plain['step'], *(times[part] for part in PARTS[:3])
            floor = [sum(x) for x in zip(*needed, strict=True)]
            entry['floor'] = ratio_to(times['step'], floor)
        entry['rounds'] = times['step']
        entry['theirs'] = {
            other.removeprefix('MMRazor '): ratio_to(
                times['step'], runs[other]['step']
            )
            for other in runs
            if other.startswith('MMRazor') and not name.startswith('MMRazor')
        }
    return found


def time_rounds(
    model: str, arms: dict[str, Arm], batch: Any, meter: Meter, rounds: int
) -> Runs:
    """Time each arm once a round, and after it the parts of ours."""
    parts = {
        name: Parts(arm, batch)
        for name, arm in arms.items()
        if hasattr(arm.model, 'teachers')
    }
    runs: Runs = {
        name: {k: [] for k in ('step', *(PARTS if name in parts else ()))}
        for name in arms
    }
    warm_up = WARM_UP[meter.device]
    order = list(arms)
    for index in tqdm(range(rounds + warm_up), f'{model}, rounds'):
        order = order[1:] + order[:1]
        for name in order:
            calls = {'step': lambda a=arms[name], i=index: a.step(batch, i)}
            if name in parts:
                calls |= {part: getattr(parts[name], part) for part in PARTS}
            for what, call in calls.items():
                seconds = meter.seconds(call)
                if index >= warm_up:
                    runs[name][what].append(seconds)
    return runs
