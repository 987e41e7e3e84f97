"""The rooms of the package: imports run down, files stay short."""

import ast
from pathlib import Path

import pytest

import lshfm_mm

PACKAGE = Path(lshfm_mm.__file__).parent
# From the top of the house: a room imports from those below it, and itself.
ROOMS = [
    'cli',
    'pairing',
    'insight',
    'components',
    'hooks',
    'training',
    'export',
    'algorithms',
    'calibration',
    'distillers',
    'teachers',
    'connectors',
    'losses',
    'backbones',
    'datasets',
    'compat',
    'utils',
    'errors',
    'version',
]
FILES = sorted(x for x in PACKAGE.rglob('*.py') if '.mim' not in x.parts)
LONG = 350  # lines; more need a reason in the file's docstring


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix('').parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this package that a file imports from, wherever it does."""
    inside = ('lshfm_mm', *path.relative_to(PACKAGE).parts[:-1])
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [x.name.split('.') for x in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else ()
            module = [*base, *(node.module or '').split('.')]
            module = [x for x in module if x]
            modules = [[*module, x.name] for x in node.names]
        rooms |= {x[1] for x in modules if x[0] == 'lshfm_mm' and len(x) > 1}
    return rooms & {*ROOMS}


def test_each_file_has_a_room():
    top = {'__init__', '__main__', 'doctor'}
    assert {room_of(x) for x in FILES} == {*ROOMS} | top


@pytest.mark.parametrize('room', ROOMS)
def test_imports_run_down(room):
    below = {*ROOMS[ROOMS.index(room) :]}
    for path in FILES:
        if room_of(path) == room:
            up = imported_rooms(path) - below
            assert not up, f'{path.relative_to(PACKAGE)} imports {up}'


def test_the_rooms_are_drawn_from_the_imports():
    """What the test above looks at, told of one file that has many."""
    rooms = imported_rooms(PACKAGE / 'algorithms/feature_mimic.py')
    assert rooms == {'algorithms', 'distillers', 'errors', 'teachers'}
    assert 'losses' in imported_rooms(PACKAGE / 'components.py')


@pytest.mark.parametrize(
    'path', FILES, ids=lambda x: str(x.relative_to(PACKAGE))
)
def test_a_long_file_says_why(path):
    text = path.read_text('utf-8')
    if len(text.splitlines()) > LONG:
        docstring = ast.get_docstring(ast.parse(text)) or ''
        assert 'Long because' in docstring


def test_the_maths_imports_torch_alone():
    """Of the packages that are installed."""
    for name in ('functional', 'hashing'):
        tree = ast.parse((PACKAGE / f'losses/{name}.py').read_text('utf-8'))
        modules = {
            x.module.split('.')[0]
            for x in ast.walk(tree)
            if isinstance(x, ast.ImportFrom) and not x.level
        }
        assert not modules & {'mmrazor', 'mmengine', 'mmcv', 'mmdet'}
