"""Trainings in a folder, each done once, whatever interrupts them."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from ..utils.files import atomic_write
from ..utils.shipped import shipped

TOOLS = shipped('tools').resolve()
SHOWN = re.compile(
    r'Epoch\(\w+\)(?: *\[[^]]*\]){1,2}| eta: \S+| loss: \S+|'
    r' \w[\w-]*/[\w-]+: \S+'
)


class Run(NamedTuple):
    """A training, whose model is exported and evaluated.

    Attributes:
        name (str): Of its files in the folder of the chain.
        config (str): File, or ``package::path``.
        options (tuple[str, ...]): ``KEY=VALUE`` changes of it in training.
        checkpoint (str): File of the training to export. Defaults to the
            last one.
    """

    name: str
    config: str
    options: tuple[str, ...] = ()
    checkpoint: str = ''


class Chain:
    """Trains, exports and evaluates; what is finished is not done again.

    Of a run NAME there are ``NAME/`` of the training, ``NAME.log`` of what
    the tools print, ``NAME.pth`` and ``NAME.py`` of the student alone,
    ``NAME.json``, its metrics, and ``NAME.options``, the changes of the
    configs that these were made with.

    Args:
        work (Path): Folder of all that.
        threads (int, optional): Of each process. Defaults to torch's choice.
        gpus (int): Of each training. Defaults to 1, or the CPU.
        batch (int, optional): Images to a step, on all GPUs together.
            Defaults to what the configs say.
        options (Sequence[str]): ``KEY=VALUE`` changes of all configs, in
            training and evaluation.
    """

    def __init__(
        self,
        work: Path,
        threads: int | None = None,
        gpus: int = 1,
        batch: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.work = work
        self.threads = threads
        self.gpus = gpus
        self.batch = batch
        self.options = options
        self.children: list[subprocess.Popen[str]] = []  # to be stopped
        # MMEngine reloads pkg_resources to find the base of a config, which
        # breaks in two threads at once.
        self.exporting = threading.Lock()

    def file(self, run: Run, suffix: str) -> str:
        """Path of one of the files of a run."""
        return str(self.work / f'{run.name}{suffix}')

    def is_trained(self, run: Run) -> bool:
        """Whether its student is there.

        Raises:
            ConfigError: If it is, and was made with other options.
        """
        return self._is_made(run.name, '.pth', '.py')

    def is_tested(self, name: str) -> bool:
        """Whether the metrics of a model are there; raises likewise."""
        return self._is_made(name, '.json')

    def _is_made(self, name: str, *suffixes: str) -> bool:
        if not all((self.work / f'{name}{x}').exists() for x in suffixes):
            return False
        noted = self.work / f'{name}.options'
        before = noted.read_text('utf-8') if noted.exists() else ''
        if before != shlex.join(self.options):
            there = self.work / name
            raise ConfigError(
                f'cfg-options: {there}{suffixes[0]} was made with '
                f'{before or "none"}, and now they are '
                f'{shlex.join(self.options) or "none"}; give the former, or '
                f'delete {there} and {there}.* first'
            )
        return True

    def _note_options(self, name: str) -> None:
        """Before a file is made, so that it has them if this is killed."""
        with atomic_write(self.work / f'{name}.options') as partial:
            partial.write_text(shlex.join(self.options), 'utf-8')

    def train(self, run: Run) -> None:
        """Train a run, or finish it; export its student."""
        if self.is_trained(run):
            return
        from ..export import export_student  # needs the stack

        self.run_tool(run.name, *self.training(run))
        folder = self.work / run.name
        checkpoint = folder / run.checkpoint
        if not run.checkpoint:
            last = folder / 'last_checkpoint'
            checkpoint = Path(last.read_text(encoding=None).strip())
        self._note_options(run.name)
        with self.exporting:
            export_student(
                str(checkpoint),
                self.file(run, '.pth'),
                force=True,
                config=run.config,
            )

    def training(self, run: Run) -> list[str]:
        """Arguments of Python that train a run, or finish it."""
        command = [str(TOOLS / 'train.py'), run.config]
        command += ['--work-dir', self.file(run, ''), '--resume']
        if self.gpus > 1:
            launch = ['-m', 'torch.distributed.run', '--standalone']
            command = [*launch, f'--nproc_per_node={self.gpus}', *command]
            command += ['--launcher', 'pytorch']
        options = [*run.options, *self.options]
        if self.batch is not None:
            each = self.batch // self.gpus
            options.insert(0, f'train_dataloader.batch_size={each}')
        return command + _changes(options)

    def evaluate(self, run: Run) -> dict[str, float]:
        """Metrics of a trained run, and seconds per image or batch."""
        config, model = (self.file(run, x) for x in ('.py', '.pth'))
        return self.test(run.name, config, model)

    def test(self, name: str, config: str, model: str) -> dict[str, float]:
        """Metrics of a model under a name, measured once."""
        result = self.work / f'{name}.json'
        if not self.is_tested(name):
            self.run_tool(name, *self.testing(name, config, model))
            found = (self.work / name / 'test').glob('*/*.json')
            newest = max(found, key=lambda path: path.stat().st_mtime)
            self._note_options(name)
            with atomic_write(result) as partial:
                partial.write_bytes(newest.read_bytes())
        return json.loads(result.read_text('utf-8'))

    def testing(self, name: str, config: str, model: str) -> list[str]:
        """Arguments of Python that evaluate a model."""
        folder = str(self.work / name / 'test')
        command = [str(TOOLS / 'test.py'), config, model]
        return [*command, '--work-dir', folder, *_changes(self.options)]

    def commands(self, run: Run) -> Iterator[str]:
        """What :meth:`train` has left to do, as one would type it."""
        if self.is_trained(run):
            return
        yield typed(self.training(run))
        checkpoint = f'{self.file(run, "")}/{run.checkpoint}'
        if not run.checkpoint:
            checkpoint = f'$(cat {checkpoint}last_checkpoint)'
        out = ['-o', self.file(run, '.pth'), '--config', _near(run.config)]
        tool = typed([str(TOOLS / 'export_student.py')])
        yield f'{tool} "{checkpoint}" {shlex.join(out)}'

    def run_tool(self, name: str, *args: str) -> None:
        """Run Python; keep what it prints, and show how far it is."""
        self.work.mkdir(parents=True, exist_ok=True)
        log = self.work / f'{name}.log'
        env = dict(os.environ)
        if self.threads is not None:
            env['OMP_NUM_THREADS'] = str(self.threads)
        with subprocess.Popen(
            [sys.executable, '-W', 'ignore', *args],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            self.children.append(process)
            try:
                with log.open('a', encoding='utf-8') as file:
                    for line in process.stdout:
                        file.write(line)
                        if 'Epoch(' in line:
                            print(f'{name:>11} | {brief(line)}', flush=True)
            except BaseException:  # else it would be waited for
                process.terminate()
                raise
        if process.returncode:
            raise ConfigError(f'{name}: its tool failed; see {log}')

    def stop(self) -> None:
        """End the tools that are running."""
        for child in self.children:
            child.terminate()


def brief(line: str) -> str:
    """Of a line of MMEngine's log: where it is, time left, loss, metrics."""
    found = [x[0].strip() for x in SHOWN.finditer(line)]
    return '  '.join(found[:4])


def _changes(options: Sequence[str]) -> list[str]:
    return ['--cfg-options', *options] if options else []


def typed(arguments: Sequence[str]) -> str:
    """Write what Python is given as one would type it."""
    return shlex.join(['python', *map(_near, arguments)])


def _near(argument: str) -> str:
    """A path as it is from here, if it lies below."""
    here = f'{Path.cwd()}{os.sep}'
    return argument.removeprefix(here)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Format rows as a Markdown table."""
    rows = [*rows]
    columns = zip(head, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    return '\n'.join(
        '| '
        + ' | '.join(x.ljust(w) for x, w in zip(line, widths, strict=True))
        + ' |'
        for line in (head, ['-' * width for width in widths], *rows)
    )
