"""A wheel of mmcv's published Python files with our operators in it.

Only the standard library is used, see :mod:`lshfm_mm.compat.install_mmcv`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path

from ..utils.files import atomic_write

LOCAL = '+torchvision'  # of the version of an mmcv with our operators
WHEEL = """\
Wheel-Version: 1.0
Generator: lshfm_mm
Root-Is-Purelib: true
Tag: py3-none-any
"""


def python_files(folder: Path) -> dict[str, bytes]:
    """Return the Python files in a folder, by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*.py'))
    }


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the files of mmcv in a wheel or a source release, by their names.

    Those of the package as ``mmcv/...``, but for sources in C++; the licenses
    and ``METADATA`` without a folder; and no others.
    """
    if path.suffix == '.whl':
        with zipfile.ZipFile(path) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist()}
    else:
        with tarfile.open(path) as source:
            files = {
                member.name.partition('/')[2]: file.read()
                for member in source
                if (file := source.extractfile(member))
            }
    kept = {}
    for name, data in files.items():
        if name.startswith('mmcv/') and '/csrc/' not in name:
            kept[name] = data
        elif re.fullmatch(r'([^/]+\.dist-info/)?(METADATA|LICEN.*)', name):
            kept[name.rpartition('/')[2]] = data
        elif name == 'PKG-INFO':
            kept['METADATA'] = data
    return kept


def record(files: dict[str, bytes], name: str) -> bytes:
    """Return what the file ``name``, a wheel's ``RECORD``, says of others."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator='\n')
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
        sha256 = f'sha256={digest.decode().rstrip("=")}'
        writer.writerow((path, sha256, len(data)))
    writer.writerow((name, '', ''))
    return rows.getvalue().encode()


def repack(archive: Path, operators: Path, name: str, folder: Path) -> Path:
    """Write a wheel of mmcv whose operators are those of a package folder.

    It is there whole or not at all; the same files give the same bytes.

    Args:
        archive (Path): Wheel or source release with mmcv's Python files.
        operators (Path): What becomes ``mmcv/_ext/``.
        name (str): The distribution, such as ``mmcv``.
        folder (Path): Where the wheel is written.

    Returns:
        Path: The wheel. Its version is the archive's with ``+torchvision``.
    """
    files = read_archive(archive)
    text = files['METADATA'].decode()
    (release,) = re.findall(r'^Version: (\S+)$', text, re.M)
    version = release + LOCAL
    text = re.sub(r'^Name: .*$', f'Name: {name}', text, count=1, flags=re.M)
    text = text.replace(
        f'\nVersion: {release}\n',
        f'\nVersion: {version}\n'
        f'Requires-Dist: torch\nRequires-Dist: torchvision\n',
        1,
    )
    files['METADATA'] = text.encode()
    files['WHEEL'] = WHEEL.encode()
    # MMEngine asks it for the name of the package's folder.
    files['top_level.txt'] = b'mmcv\n'
    stem = f'{name.replace("-", "_")}-{version}'
    info = f'{stem}.dist-info'
    packed = {
        path if '/' in path else f'{info}/{path}': data
        for path, data in files.items()
    }
    for path, data in python_files(operators).items():
        packed[f'mmcv/_ext/{path}'] = data
    packed[f'{info}/RECORD'] = record(packed, f'{info}/RECORD')
    wheel = folder / f'{stem}-py3-none-any.whl'
    with atomic_write(wheel) as partial, zipfile.ZipFile(partial, 'w') as file:
        for path, data in packed.items():
            entry = zipfile.ZipInfo(path)  # its date is always the same
            entry.external_attr = 0o644 << 16
            file.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel
