"""What a config says of its teachers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.model import BaseModel
from torch import nn

from ..errors import ConfigError, nearest


class TeacherSettings(NamedTuple):
    """What a config says of a teacher; see ``FeatureMimicDistill``.

    Attributes:
        name (str): Its key in ``teachers``; '' of the only one.
    """

    model: Mapping[str, Any] | str | BaseModel | None = None
    ckpt: str | None = None
    strict: bool = True
    size: int | Sequence[int] | None = None
    precision: str | None = None
    channels_last: bool = False
    compile: bool = False
    name: str = ''

    @property
    def label(self) -> str:
        """What tables and logs call it."""
        return f'teacher {self.name}'.rstrip()

    def field(self, key: str) -> str:
        """Where a setting stands in the config of the algorithm."""
        if self.name:
            return f'teachers.{self.name}.{key}'
        return 'teacher' if key == 'model' else f'teacher_{key}'


KEYS = [x for x in TeacherSettings._fields if x != 'name']


def read_teachers(config: Mapping[str, Any]) -> dict[str, TeacherSettings]:
    """Read the teachers in the config of an algorithm, by name.

    Raises:
        ConfigError: If there is none, both forms are mixed, or a name or key
            is not possible.
    """
    default = TeacherSettings()
    given = {key: default.field(key) for key in KEYS}
    only = default._replace(
        **{k: config[field] for k, field in given.items() if field in config}
    )
    teachers = config.get('teachers')
    if teachers is None:
        return {'': only}
    for key, field in given.items():
        if getattr(only, key) != getattr(default, key):
            raise ConfigError(
                f'teachers: stands beside {field}; write {key} into the entry '
                f'of its teacher, or leave teachers out'
            )
    if not isinstance(teachers, Mapping) or not teachers:
        raise ConfigError(
            f"teachers: must be a dict such as dict(a=dict(model=..., ckpt='"
            f"a.pth'), b=...), but got {teachers!r}"
        )
    settings = {}
    for name, entry in teachers.items():
        taken = hasattr(BaseModel, str(name)) or hasattr(
            nn.ModuleDict(), str(name)
        )
        if not isinstance(name, str) or not name.isidentifier() or taken:
            raise ConfigError(
                f'teachers: {name!r} cannot be the name of a teacher; take '
                f'letters, digits and _, and no method of a model'
            )
        if not isinstance(entry, Mapping):
            raise ConfigError(
                f'teachers.{name}: must be a dict with {KEYS}, but got '
                f'{entry!r}'
            )
        for key in entry:
            if key not in KEYS:
                meant = nearest(key, KEYS) or f'; it takes {KEYS}'
                raise ConfigError(f'teachers.{name}: takes no {key!r}{meant}')
        settings[name] = TeacherSettings(**entry, name=name)
    return settings


def split_source(source: str) -> tuple[str, str]:
    """Split ``a:neck`` into teacher and layer; the only teacher is ''."""
    name, _, layer = source.rpartition(':')
    return name, layer
