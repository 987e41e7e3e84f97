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
import tempfile
import zipfile
from pathlib import Path

LOCAL = '+torchvision'  # of the version of an mmcv with our operators
WHEEL = """\
Wheel-Version: 1.0
Generator: lshfm_mm
Root-Is-Purelib: true
Tag: py3-none-any
"""


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the files of mmcv in a wheel or a source release.

    Returns:
        dict[str, bytes]: By name: those of the package as ``mmcv/...``, the
        licenses and ``METADATA`` without a folder. Sources in C++ are left
        out, and what belongs to no package.
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


def write_wheel(path: Path, files: dict[str, bytes]) -> None:
    """Write a wheel, whole or not at all; the same files give the same bytes.

    Args:
        path (Path): The wheel.
        files (dict[str, bytes]): What is in it, but ``RECORD``.
    """
    (info,) = {x.partition('/')[0] for x in files if '.dist-info/' in x}
    record = io.StringIO()
    rows = csv.writer(record, lineterminator='\n')
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
        sha256 = f'sha256={digest.decode().rstrip("=")}'
        rows.writerow((name, sha256, len(data)))
    rows.writerow((f'{info}/RECORD', '', ''))
    files = {**files, f'{info}/RECORD': record.getvalue().encode()}
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        part = Path(scratch) / path.name
        with zipfile.ZipFile(part, 'w') as wheel:
            for name, data in files.items():
                entry = zipfile.ZipInfo(name)  # its date is always the same
                entry.external_attr = 0o644 << 16
                wheel.writestr(entry, data, zipfile.ZIP_DEFLATED)
        part.replace(path)


def repack(archive: Path, operators: Path, name: str, folder: Path) -> Path:
    """Write a wheel of mmcv whose operators are those of a package folder.

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
    packed = {
        path if '/' in path else f'{stem}.dist-info/{path}': data
        for path, data in files.items()
    }
    for path in sorted(operators.rglob('*.py')):
        inside = path.relative_to(operators).as_posix()
        packed[f'mmcv/_ext/{inside}'] = path.read_bytes()
    wheel = folder / f'{stem}-py3-none-any.whl'
    write_wheel(wheel, packed)
    return wheel
