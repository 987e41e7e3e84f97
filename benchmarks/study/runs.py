"""One run of the study: its config, its training, its record."""

import copy
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grid
import torch
from arm import WORK, Arm, Options, with_losses
from mmengine.config import Config

from lshfm_mm.datasets import shapes
from lshfm_mm.errors import ConfigError
from lshfm_mm.insight.curves import read_curves
from lshfm_mm.utils.files import atomic_write

REPO = Path(__file__).resolve().parents[2]
RESULTS = REPO / 'docs/study.jsonl'
Record = dict[str, Any]
READING = threading.Lock()  # MMEngine's config reader wants one thread
CHILDREN: list[subprocess.Popen[bytes]] = []
STARTING = threading.Lock()  # of children, so that none starts after a stop
STOPPED = threading.Event()
# CPUs with AVX-512 would give other numbers than those without.
INSTRUCTIONS = {'ATEN_CPU_CAPABILITY': 'avx2', 'ONEDNN_MAX_CPU_ISA': 'AVX2'}
READ = ('.', ':!docs', ':!README.md')  # the rest is what a study writes
ALIGNMENT = ('angle', 'norm_ratio', 'equal_codes')


class Run(NamedTuple):
    """One training.

    Attributes:
        experiment (str): Of the grid, or 'needed'.
        arm (str): Name of the arm in it.
        seed (int): Of initialisation and order of the images.
        split (str): Where it is measured: 'val' or 'test'.
        factor (float): Of the method's weights.
        spec (Arm): What is trained.
    """

    experiment: str
    arm: str
    seed: int
    split: str
    factor: float
    spec: Arm

    @property
    def name(self) -> str:
        """Unique; a path below the work folder."""
        arm = f'{self.arm}_x{self.factor:g}'
        return f'{self.experiment}/{self.split}/{arm}/{self.seed}'

    @property
    def folder(self) -> Path:
        """Of its log."""
        return Path(WORK) / self.name

    @property
    def lock(self) -> Path:
        """What its training holds."""
        return self.folder.with_suffix('.lock')

    @property
    def options(self) -> Options:
        """What is changed in the config of the arm."""
        options = copy.deepcopy(self.spec.options)
        options['randomness.seed'] = self.seed
        if self.spec.method is not None:
            options |= with_losses(self.spec.method, self.factor)
        if self.split == 'test':
            options |= self.spec.test_data
        return options

    @property
    def images(self) -> list[str]:
        """Names of the generated ones that it sees."""
        text = json.dumps(self.options)
        return [x for x in grid.DATA if f'data/study/{x}/' in text]

    @property
    def fingerprint(self) -> str:
        """Of all that the grid says of it: what differs is another run.

        Of what it starts from, too, and of the images that it sees; not of
        the files in ``configs`` and the code.
        """
        said = [
            *(self.spec.config, self.options),
            {x: needed(x).fingerprint for x in self.spec.starts_from},
        ]
        text = json.dumps(said, sort_keys=True)
        text += json.dumps({x: grid.DATA[x] for x in self.images})
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def needed(arm: str) -> Run:
    """What makes the weights that others start from."""
    [spec] = [stage[arm] for stage in grid.NEEDED if arm in stage]
    return Run('needed', arm, 0, 'test', 1.0, spec)


def prepare_data(names: Iterable[str] = grid.DATA) -> None:
    """Generate what images are not there yet."""
    for name in names:
        seed, train, val, size = grid.DATA[name]
        shapes.generate(f'data/study/{name}', train, val, size, seed)


def read_records() -> dict[str, Record]:
    """What was measured, by the names of the runs."""
    if not RESULTS.exists():
        return {}
    lines = RESULTS.read_text('utf-8').splitlines()
    return {x['run']: x for x in map(json.loads, lines)}


def write_records(records: Mapping[str, Record]) -> None:
    """Write all that was measured, a line a run."""
    lines = [json.dumps(records[x], sort_keys=True) for x in sorted(records)]
    with atomic_write(RESULTS) as partial:
        partial.write_text('\n'.join(lines) + '\n', 'utf-8')


def is_done(run: Run, records: Mapping[str, Record]) -> bool:
    """Whether a run of the same config is recorded, and what it made here."""
    record = records.get(run.name)
    if record is None or record['config'] != run.fingerprint:
        return False
    if run.experiment != 'needed':
        return True
    path = weights_of(run.arm)
    return path.exists() and digest(path) == record['weights']


def weights_of(arm: str) -> Path:
    """Where others find the weights of a run that they need."""
    return Path(WORK, f'{arm}.pth')


def digest(path: Path) -> str:
    """Of the weights in a checkpoint."""
    found = hashlib.sha256()
    state = torch.load(path, map_location='cpu', weights_only=False)
    for key, value in sorted(state['state_dict'].items()):
        found.update(key.encode() + value.numpy().tobytes())
    return found.hexdigest()[:12]


def add(records: dict[str, Record], record: Record) -> None:
    """Record what was measured.

    Args:
        records (dict): What was recorded; changed in place.
        record (dict): Of a run.

    Raises:
        ConfigError: If it made weights, and other ones than those that the
            recorded runs started from.
    """
    old = records.get(record['run'], {})
    if old.get('config') == record['config'] and (
        old.get('weights') != record.get('weights')
    ):
        raise ConfigError(
            f'{record["run"]}: trained again these are other weights than '
            f'those that the runs in {RESULTS} started from (another kind of '
            f'machine?); move that file away to start over'
        )
    records[record['run']] = record
    write_records(records)


def train(run: Run, gpu: str | None, threads: int) -> Record:
    """Train and evaluate in a process of its own.

    Args:
        run (Run): The run. What an earlier try left is removed.
        gpu (str, optional): Index of the GPU. Defaults to the CPU.
        threads (int): Of the process.

    Returns:
        dict: What is recorded of it.

    Raises:
        ConfigError: If it fails; says where its log is.
    """
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    path = run.folder / 'config.py'
    with READING:
        cfg = Config.fromfile(REPO / 'configs' / run.spec.file)
    cfg.merge_from_dict(run.options)
    cfg.dump(path)
    start = time.monotonic()
    made_by = dict(machine=machine(gpu), threads=threads, commit=commit())
    environment = dict(
        os.environ,
        **INSTRUCTIONS,
        OMP_NUM_THREADS=str(threads),
        CUDA_VISIBLE_DEVICES='' if gpu is None else visible(gpu),
    )
    run_tool(run, path, environment)
    found = measured(run)
    if run.experiment == 'needed':
        shutil.copy(path, weights_of(run.arm).with_suffix('.py'))
    seconds = round(time.monotonic() - start)
    return {**found, 'seconds': seconds, **made_by}


def run_tool(run: Run, config: Path, environment: Mapping[str, str]) -> None:
    """Run the tool that trains; raise if it fails."""
    log = run.folder / 'log.txt'
    with log.open('wb') as file, STARTING:
        if STOPPED.is_set():
            raise ConfigError(f'{run.name}: not started, the study stops')
        child = subprocess.Popen(
            [
                *(sys.executable, '-W', 'ignore'),
                *(str(REPO / 'benchmarks/study/locked.py'), str(run.lock)),
                *(str(REPO / 'tools/train.py'), str(config)),
                *('--work-dir', str(run.folder)),
            ],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        CHILDREN.append(child)
    code = child.wait()
    CHILDREN.remove(child)
    if code:
        raise ConfigError(f'{run.name}: failed; see {log}')


def measured(run: Run) -> Record:
    """What a run has measured; its weights are kept if others need them."""
    curves = read_curves(run.folder)
    last = {key: points[-1][1] for key, points in curves.items()}
    if run.spec.metric not in last:
        raise ConfigError(
            f'{run.name}: measured no {run.spec.metric}; see its log in '
            f'{run.folder}'
        )
    checkpoint = Path(
        (run.folder / 'last_checkpoint').read_text(encoding=None)
    )
    made = {}
    if run.experiment == 'needed':
        made['weights'] = digest(checkpoint)
        checkpoint.replace(weights_of(run.arm))
    checkpoint.unlink(missing_ok=True)
    prefix = run.spec.metric.partition('/')[0] + '/'
    return {
        'run': run.name,
        'experiment': run.experiment,
        'arm': run.arm,
        'seed': run.seed,
        'split': run.split,
        'factor': run.factor,
        'config': run.fingerprint,
        'value': last[run.spec.metric],
        'metrics': {k: v for k, v in last.items() if k.startswith(prefix)},
        'alignment': {
            k: round(v, 4) for k, v in last.items() if k.endswith(ALIGNMENT)
        },
        'losses': {k: round(v, 4) for k, v in last.items() if 'loss' in k},
        **made,
    }


def stop() -> None:
    """Stop the runs that are going on, and start no more."""
    with STARTING:
        STOPPED.set()
        for child in [*CHILDREN]:
            child.terminate()


def visible(gpu: str) -> str:
    """What a GPU of this process is called for a child."""
    mask = os.environ.get('CUDA_VISIBLE_DEVICES')
    return mask.split(',')[int(gpu)] if mask else gpu


def machine(gpu: str | None) -> str:
    """What a run ran on."""
    if gpu is not None:
        device = torch.cuda.get_device_name(int(gpu))
    else:
        device = f'CPU ({platform.machine()}, AVX2 at most)'
    return f'{device}, torch {torch.__version__}'


def commit() -> str:
    """Of this repository, '+' if files that a study may not write differ."""

    def git(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ['git', *args],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        )

    differs = git('status', '--porcelain', '--', *READ).stdout
    found = git('rev-parse', '--short', 'HEAD').stdout.strip()
    return found + ('+' if differs else '')
