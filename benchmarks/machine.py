"""What figures were measured on, as pages write it beside them."""

import platform
import subprocess
from pathlib import Path


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
