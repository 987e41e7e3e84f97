"""``python -m lshfm_mm train CONFIG``: the tools, wherever this lies."""

import runpy
import sys

from .shipped import shipped

TOOLS = shipped('tools')


def main() -> None:
    """Run the tool that the first argument names on the others."""
    names = sorted(x.stem for x in TOOLS.glob('*.py'))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(f'usage: python -m lshfm_mm {{{",".join(names)}}} ...')
    tool = TOOLS / f'{sys.argv[1]}.py'
    sys.argv[:2] = [str(tool)]
    runpy.run_path(str(tool), run_name='__main__')


if __name__ == '__main__':
    main()
