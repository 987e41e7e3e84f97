"""Download photographs, and convert them into a folder."""

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

from ...errors import ConfigError, check_choice
from .sources import SOURCES

NOTICE = 'NOTICE'


def get_photographs(name: str, out: str, source: str | None = None) -> str:
    """Write a set of photographs to a folder, whole or not at all.

    A folder that holds it already stays as it is.

    Args:
        name (str): Key of :data:`SOURCES`.
        out (str): Folder to write to.
        source (str, optional): Folder, zip archive or URL of one to take.
            Defaults to the published one, which must be what it was.

    Returns:
        str: What was written to ``NOTICE``: origin, licence and changes.

    Raises:
        ConfigError: If there is no such set, ``out`` holds something else, or
            the source cannot be had or is not what it must be.
    """
    check_choice('name', name, tuple(SOURCES))
    known, target = SOURCES[name], Path(out)
    if target.is_file() or (target.exists() and any(target.iterdir())):
        return _held(target, known.notice)
    where = source or known.url
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix='_partial_', dir=target.parent
    ) as partial:
        root = _find_root(where, Path(partial, 'source'), known.parts)
        taken = f'Taken from {where}'
        if digest(root, known.parts) != known.sha256:
            taken += f', which is not what {known.url} was'
            if source is None:
                raise ConfigError(
                    f'source: {where} is not what it was when this was '
                    f'written; give an archive of this commit by --source'
                )
        result = Path(partial, 'result')
        result.mkdir()
        try:
            known.convert(root, result)
        except (OSError, ValueError, KeyError, ParseError) as error:
            raise ConfigError(
                f'source: {where} cannot be read as {name} '
                f'({type(error).__name__}: {error}); leave --source out, or '
                f'give what {known.url} has'
            ) from None
        for part in known.parts:
            if (root / part).is_file():
                shutil.copy(root / part, result)
        notice = f'{known.notice}{taken}\n'
        (result / NOTICE).write_text(notice, 'utf-8')
        if target.exists():
            target.rmdir()  # Windows renames to no folder that is there
        result.rename(target)
    return notice


def digest(root: Path, parts: Sequence[str]) -> str:
    """Sum up names and content of files: sha256, hexadecimal.

    The archive itself will not do: GitHub may pack one anew.
    """
    found = hashlib.sha256()
    for part in parts:
        for path in sorted([root / part, *(root / part).rglob('*')]):
            if path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                name = path.relative_to(root).as_posix()
                found.update(f'{content}  {name}\n'.encode())
    return found.hexdigest()


def _held(target: Path, notice: str) -> str:
    """The notice of a set that is there."""
    path = target / NOTICE
    held = path.read_text('utf-8') if path.is_file() else ''
    if not held.startswith(notice):
        raise ConfigError(
            f'out: {target} is there and holds something else; take another '
            f'folder or delete it'
        )
    return held


def _find_root(where: str, folder: Path, parts: Sequence[str]) -> Path:
    """Unpack into a folder what must be; find where the parts are."""
    root = Path(where)
    if not root.is_dir():
        archive = root
        if '://' in where:
            archive = folder.with_suffix('.zip')
            from torch.hub import download_url_to_file  # takes seconds

            try:
                download_url_to_file(where, str(archive))
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f'source: cannot download {where} ({error}); do it '
                    f'elsewhere, and give the archive by --source'
                ) from None
        try:
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f'source: {where} is no folder and no whole zip archive '
                f'({error}); give one'
            ) from None
        root = folder
    for place in (root, *sorted(root.rglob('*'))):
        if all((place / part).exists() for part in parts):
            return place
    raise ConfigError(
        f'source: in {where} is no folder with {", ".join(parts)}; give what '
        f'the tool downloads without --source'
    )
