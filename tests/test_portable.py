"""What Linux lets pass, and macOS or Windows do not."""

import ast
from pathlib import Path

import pytest

from .test_docs import TRACKED

REPO = Path(__file__).parent.parent
SOURCES = [
    x
    for x in TRACKED
    if x.endswith('.py') and x.startswith(('lsh', 'tools', 'bench'))
]


def without_encoding(code: str) -> list[str]:
    """Calls that read or write text in the encoding of the machine."""
    found = []
    for call in ast.walk(ast.parse(code)):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func)
        if name.startswith(('os.', 'tarfile.', 'zipfile.', 'Image.')) or any(
            x.arg == 'encoding' for x in call.keywords
        ):
            continue
        is_method = isinstance(call.func, ast.Attribute)
        given = call.args if is_method else call.args[1:]
        modes = [*given, *(x.value for x in call.keywords if x.arg == 'mode')]
        method = name.rpartition('.')[2]
        if (
            (method == 'read_text' and not given)
            or (method == 'write_text' and len(given) < 2)
            or (method == 'open' and 'b' not in ast.unparse(modes[:1]))
        ):
            found.append(ast.unparse(call))
    return found


def test_calls_without_an_encoding_are_seen():
    code = """
path.read_text()
path.write_text(text)
path.open()
open(path, 'w')
open(path, mode='a')
path.read_text('utf-8')
path.write_text(text, encoding='utf-8')
path.open('rb')
open(path, mode='wb')
open(path, encoding='utf-8')
os.open(path, os.O_RDONLY)
Image.open(path)
"""
    expected = [x.strip() for x in code.splitlines()[1:6]]
    assert without_encoding(code) == expected


@pytest.mark.parametrize('path', SOURCES)
def test_files_are_read_and_written_in_a_named_encoding(path):
    """Windows would take cp1252; ``None`` names what MMEngine takes."""
    assert without_encoding((REPO / path).read_text('utf-8')) == []
