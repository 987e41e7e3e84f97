"""Run the study, or go on with it; make its tables and plots.

Generates the images, trains what others need (backbones, teachers), then the
runs of ``grid.py``, several side by side. What a run has measured is written
to ``docs/study.jsonl`` as soon as it ends: stop it whenever you like, and
start it again. A run whose entry in the grid has changed since is done again.
Tables and plots are made of that file alone.
"""

import argparse
import os
import queue
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import plan
import report
import runs
import torch
from arm import WORK
from filelock import FileLock, Timeout
from runs import Record, Run
from tqdm import tqdm

from lshfm_mm import cli
from lshfm_mm.errors import ConfigError


class Workers:
    """Runs that go side by side, each in a process; what ends is recorded."""

    def __init__(self, gpus: list[str], jobs: int) -> None:
        self.places: queue.Queue[str | None] = queue.Queue()
        for place in gpus or [None] * jobs:
            self.places.put(place)
        self.count = self.places.qsize()
        self.threads = max((os.cpu_count() or 1) // self.count, 1)
        self.records = runs.read_records()
        self.failed: list[str] = []

    def do(self, what: str, planned: list[Run]) -> None:
        """Train those that are not recorded yet."""
        left = [x for x in planned if not runs.is_done(x, self.records)]
        bar = tqdm(total=len(planned), initial=len(planned) - len(left))
        bar.set_description(what)
        with bar, ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(self._one, run) for run in left]
            try:
                for future in as_completed(futures):
                    record = future.result()
                    bar.update()
                    if record is not None:
                        runs.add(self.records, record)
                        bar.write(f'{record["run"]}: {record["value"]}')
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                runs.stop()
                raise

    def check(self) -> None:
        """Raise if a run has failed."""
        if self.failed:
            raise ConfigError('; '.join(self.failed))

    def _one(self, run: Run) -> Record | None:
        place = self.places.get()
        try:
            return runs.train(run, place, self.threads)
        except ConfigError as error:
            self.failed.append(str(error))
            return None
        finally:
            self.places.put(place)


def read_arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--only',
        nargs='+',
        default=plan.SHAPES,
        help="patterns of EXPERIMENT/ARM, such as '*/lsh*'; all on generated "
        'images, if not given',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        help="others than the grid's, of the student alone, too",
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=os.cpu_count() or 1,
        help='runs side by side on the CPU',
    )
    parser.add_argument(
        '--gpus', nargs='+', default=[], help='indices; a run on each'
    )
    parser.add_argument(
        '--report', action='store_true', help='only make tables and plots'
    )
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Raise if what is asked for cannot be done."""
    if not list(plan.chosen(args.only)):
        raise ConfigError(
            f'--only: no EXPERIMENT/ARM fits {args.only!r}; the arms are in '
            f'benchmarks/study/grid.py'
        )
    plan.check_photographs(args.only)
    if args.jobs < 1:
        raise ConfigError(f'--jobs: must be 1 or more, but got {args.jobs}')
    seen = torch.cuda.device_count()
    if missing := set(args.gpus) - {f'{x}' for x in range(seen)}:
        raise ConfigError(
            f'--gpus: torch sees {seen}, of which {sorted(missing)} are none; '
            f'they count from 0'
        )


def take(work: Path) -> FileLock:
    """Keep others from a folder while the lock that is returned lives."""
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / 'lock', timeout=0)
    try:
        lock.acquire()
        for path in work.rglob('*.lock'):
            with FileLock(path, timeout=0):
                pass
    except Timeout:
        raise ConfigError(
            f'{work}: another study runs there, or a training that a killed '
            f'one has left; wait for it, or end it'
        ) from None
    return lock


def train(args: argparse.Namespace) -> None:
    """Do what is not done yet."""
    workers = Workers(args.gpus, args.jobs)
    runs.prepare_data(plan.images(args.only))
    for stage in plan.needed(args.only):
        workers.do('needed', stage)
        workers.check()
    for _ in ('between the ends', 'beyond them'):
        found = plan.current(workers.records)
        workers.do('tuning', plan.tuning(args.only, found))
        workers.check()
    found = plan.current(workers.records)
    workers.do('runs', plan.final(args.only, found, args.seeds))
    workers.check()


def main() -> None:
    """Train, then make tables and plots."""
    args = read_arguments()
    cli.load_stack()
    if not args.report:
        check(args)
        _held = take(Path(WORK))  # until this process ends
        train(args)
    records = plan.current(runs.read_records())
    for path in report.write(records):
        print(f'written: {path}')
    for name in report.unmarked(records):
        print(
            f'on no page: {name}; write "<!-- study: {name} -->" and '
            f'"<!-- end -->" where it shall stand, on a docs/results_*.md'
        )


if __name__ == '__main__':
    cli.run_main(main, stopped='study: stopped; started again it goes on')
