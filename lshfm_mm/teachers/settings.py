"""What a config says of a teacher."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.model import BaseModel


class TeacherSettings(NamedTuple):
    """What a config says of a teacher, as ``FeatureMimicDistill`` has it."""

    model: Mapping[str, Any] | str | BaseModel
    ckpt: str | None = None
    strict: bool = True
    precision: str | None = None
    channels_last: bool = False
    compile: bool = False

    def field(self, key: str) -> str:
        """Where a setting stands in the config of the algorithm."""
        return 'teacher' if key == 'model' else f'teacher_{key}'
