"""The curves of trainings, from what MMEngine has logged."""

import itertools
import json
import math
from pathlib import Path

# Of no interest, or the axis.
SKIPPED = ('epoch', 'iter', 'step', 'time', 'data_time', 'memory', 'lr')
ALIGNED = ('.angle', '.norm_ratio', '.equal_codes')  # of the AlignmentHook
Curve = list[list[float]]  # iterations and values


def read_curves(folder: Path) -> dict[str, Curve]:
    """Read what a training has logged into its work folder.

    What a resumed training did again counts once, as it was done last.
    Metrics stand at the iteration after which they were measured.
    ``task_loss`` is the loss without that of mimicking, ``mimic_loss``.
    """
    curves: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        text = path.read_text('utf-8')
        lines = [json.loads(x) for x in text.splitlines() if x]
        steps = [x['step'] for x in lines if 'iter' in x]
        for curve in curves.values():
            for step in [x for x in curve if steps and x >= steps[0]]:
                del curve[step]
        now = 0
        for line in lines:
            now = line['step'] if 'iter' in line else now
            mimic = [v for k, v in line.items() if k.startswith('distill.')]
            if 'loss' in line:
                line['task_loss'] = line['loss'] - sum(mimic)
                if mimic:
                    line['mimic_loss'] = sum(mimic)
            for key, value in line.items():
                number = isinstance(value, int | float)
                if key not in SKIPPED and number and math.isfinite(value):
                    curves.setdefault(key, {})[now] = value
    found = {}
    for key, curve in curves.items():
        points = [[step, curve[step]] for step in sorted(curve)]
        if key.endswith(ALIGNED):  # the log repeats them until the next
            same = itertools.groupby(points, key=lambda point: point[1])
            points = [next(group) for _, group in same]
        if points:
            found[key] = points
    return found
