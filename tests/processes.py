"""Runs Python as a command line does, in a process of its own."""

import importlib.util
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch

REPO = Path(__file__).parent.parent
# Processes that begin where this one, which has imported the stack and done
# nothing else, stands: importing takes 6 s. Where there is no fork there is
# no such server.
METHOD = 'forkserver' if hasattr(os, 'fork') else 'spawn'
TIMEOUT = 600  # seconds; a hang ends there
multiprocessing.set_forkserver_preload(
    ['lshfm_mm', 'lshfm_mm.cli.training', 'mmdet.apis']
)


def load_tool(name: str) -> ModuleType:
    """A tool as a module, new each time."""
    spec = importlib.util.spec_from_file_location(
        name, REPO / f'tools/{name}.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(tool: str, *args: object, code: int = 0) -> str:
    """Run a file of the repository with arguments, from its root.

    Args:
        tool (str): Its path there.
        args: Its arguments.
        code (int): Exit status that is expected.

    Returns:
        str: What it printed, errors included.
    """
    (exit_status,), text = _in_processes([(_run_file, tool, *args)], TIMEOUT)
    assert exit_status == code, text
    return text


def run_each(*calls: tuple, timeout: float, method: str = METHOD) -> None:
    """Call functions at the same time, each in a process of its own.

    Args:
        calls (tuple): A function and its arguments, a process each.
        timeout (float): Seconds after which all are killed.
        method (str): How they start; 'spawn' where they need a GPU, which
            MMEngine's import bars forks of its process from.
    """
    exit_status, text = _in_processes(calls, timeout, method)
    assert not any(exit_status), text


def _in_processes(
    calls: Sequence[tuple], timeout: float, method: str = METHOD
) -> tuple[list[int | None], str]:
    """Exit status of each, and all that was printed, errors last."""
    until = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ('stdout', 'stderr')]
        for path in said:
            path.touch()
        context = multiprocessing.get_context(method)
        given = dict(os.environ), said
        processes = [
            context.Process(target=_call, args=(*given, *call))
            for call in calls
        ]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(max(until - time.monotonic(), 0))
        finally:
            for process in processes:
                process.kill()
                process.join()
        text = ''.join(path.read_text('utf-8') for path in said)
    return [process.exitcode for process in processes], text


def _call(
    environment: dict[str, str],
    said: list[Path],
    function: Callable,
    *args: object,
) -> None:
    """What a new process does."""
    os.environ.clear()
    os.environ.update(environment)  # the server has that of its start
    for stream, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    os.chdir(REPO)
    function(*args)


def _run_file(tool: str, *args: object) -> None:
    sys.argv = [tool, *map(str, args)]
    runpy.run_path(tool, run_name='__main__')


def run_python(*args: object, code: int = 0, cwd: Path | str = REPO) -> str:
    """Run a new Python, in which nothing is imported.

    Args:
        args: Its arguments.
        code (int): Exit status that is expected.
        cwd (Path | str): Folder to start it in. From the repository it
            imports the package there.

    Returns:
        str: What it printed, errors included.
    """
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': str(REPO) if cwd == REPO else '',
        },
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
