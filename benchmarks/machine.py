"""What benchmarks share: what they run on, and how they measure."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def processor() -> str:
    """Name of the CPU."""
    cpu = Path('/proc/cpuinfo')
    if cpu.is_file():
        for line in cpu.read_text('utf-8').splitlines():
            if line.startswith('model name'):
                return line.split(':')[1].strip()
    return platform.processor() or platform.machine()


def commit(repo: Path) -> str:
    """What of a repository was run, or 'unknown' where git knows none.

    Args:
        repo (Path): A folder in it.

    Returns:
        str: The commit, '-dirty' behind it where files differ.
    """
    try:
        described = subprocess.run(
            ['git', '-C', repo, 'describe', '--always', '--dirty'],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git
        return 'unknown'
    return described.stdout.strip() or 'unknown'


def memory(key: str) -> int:
    """Bytes of this process: 'VmRSS' now, 'VmHWM' at most since a reset."""
    for line in Path('/proc/self/status').read_text('utf-8').splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)


def measured(script: str, *arguments: object) -> Any:
    """Run a benchmark with ``--measure`` and arguments in a new process.

    Returns:
        Any: What it prints last, of JSON.
    """
    said = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', script, '--measure'),
            *map(str, arguments),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return json.loads(said.splitlines()[-1])
