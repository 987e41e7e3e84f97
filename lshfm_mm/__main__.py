"""``python -m lshfm_mm train CONFIG``: the tools, wherever this lies."""

import importlib
import runpy
import sys

from .utils.shipped import shipped

TOOLS = shipped('tools')
SET_UP = ('doctor', 'install_mmcv')


def main() -> None:
    """Run the tool that the first argument names on the others."""
    names = sorted([*SET_UP, *(x.stem for x in TOOLS.glob('*.py'))])
    usage = f'usage: python -m lshfm_mm {{{",".join(names)}}} ...'
    if sys.argv[1:] in (['-h'], ['--help']):
        print(usage)
        return
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.exit(usage)
    name = sys.argv[1]
    if name in SET_UP:
        sys.argv[:2] = [f'{__package__} {name}']
        sys.exit(
            importlib.import_module(f'.compat.{name}', __package__).main()
        )
    importlib.import_module('.cli', __package__)  # says what is not there
    tool = TOOLS / f'{name}.py'
    sys.argv[:2] = [str(tool)]
    runpy.run_path(str(tool), run_name='__main__')


if __name__ == '__main__':
    main()
