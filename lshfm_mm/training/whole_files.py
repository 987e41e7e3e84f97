"""Checkpoints that are there whole or not at all."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ..utils.files import atomic_write


# A backend is how MMEngine's ``save_checkpoint`` is told the way to write.
@register_backend('whole')
class WholeBackend(LocalBackend):
    """Local files that are written whole, and removed when it is safe.

    Where ``waiting`` is a list, files to remove are noted there and stay.
    """

    waiting: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file, and make its folder."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(filepath)) as partial:
            partial.write_bytes(obj)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, or note it."""
        if self.waiting is None:
            super().remove(filepath)
        else:
            self.waiting.append(str(filepath))
