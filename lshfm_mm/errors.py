"""The errors that the tools print as one line."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, isclass, signature
from pathlib import Path
from typing import Any, TypeGuard


class ConfigError(ValueError):
    """A setting, file or tensor is not what it must be.

    The message is one line that names the field, the value that was found
    and the fix. The tools print it without a traceback.
    """


class NonFiniteError(FloatingPointError):
    """A loss is NaN or infinite, and training on would spoil the student."""


VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def check_arguments(
    field: str, kind: Any, given: Iterable[str], student: Any = None
) -> None:
    """Raise ConfigError at an argument that a class does not take.

    What it takes as ``**kwargs`` is for the classes that it derives from.

    Args:
        field (str): Where the arguments stand, for messages.
        kind (type): The class.
        given (Iterable[str]): Names of arguments, as in a config.
        student (dict): Config of the student inside, if there is one.
    """
    known: set[str] = set()
    for base in kind.__mro__ if isclass(kind) else ():
        init = vars(base).get('__init__')
        if init is not None:
            _, *parameters = signature(init).parameters.values()
            known |= {x.name for x in parameters if x.kind not in VARIADIC}
            if all(x.kind != Parameter.VAR_KEYWORD for x in parameters):
                break
    for name in given:
        if known and name not in known | {'type', '_scope_'}:
            meant = nearest(name, known) or f'; it takes {sorted(known)}'
            if isinstance(student, Mapping) and name in student:
                meant = f'; the student has one, {field}.architecture.{name}'
            raise ConfigError(
                f'{field}: {kind.__name__} takes no {name!r}{meant}'
            )


def nearest(name: str, names: Any) -> str:
    """The names that a wrong one may have meant, as half a sentence."""
    found = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f'; did you mean {" or ".join(map(repr, found))}?' if found else ''


def from_here(path: str) -> str:
    """Where a relative path starts, as half a sentence.

    Those in ``_base_`` start at the file, and all others do not.
    """
    if '::' in path or Path(path).expanduser().is_absolute():
        return ''
    return ' in the folder in which the tool was started'


NAMED_KEYS = 5


def few(names: list[str]) -> str:
    """Some names, for a message."""
    more = ', ...' if len(names) > NAMED_KEYS else ''
    return ', '.join(names[:NAMED_KEYS]) + more


def _check(fits: bool, field: str, wanted: str, value: object) -> None:
    if not fits:
        raise ConfigError(f'{field}: must be {wanted}, but got {value!r}')


def check_int(
    field: str, value: object, least: int = 1, most: float = math.inf
) -> None:
    """Raise ConfigError unless a value is an int in a range, and no bool."""
    limits = f'>= {least}' if most == math.inf else f'in {least} .. {most}'
    fits = type(value) is int and least <= value <= most
    _check(fits, field, f'an int {limits}', value)


def check_bools(values: Mapping[str, object]) -> None:
    """Raise ConfigError unless all values of some settings are bools."""
    for field, value in values.items():
        _check(isinstance(value, bool), field, 'True or False', value)


def check_choice(field: str, value: object, choices: Sequence[Any]) -> None:
    """Raise ConfigError unless a value is one of some."""
    _check(value in choices, field, f'one of {tuple(choices)}', value)


def check_positive(field: str, value: object, other: str = '') -> None:
    """Raise ConfigError unless a value is a finite number > 0.

    ``other`` says what else it may be.
    """
    fits = _is_number(value) and 0 < value < math.inf
    _check(fits, field, f'a finite number > 0{other}', value)


def check_loss_weight(value: object) -> None:
    """Raise ConfigError unless a value can weigh a loss."""
    fits = _is_number(value) and 0 <= value < math.inf
    _check(fits, 'loss_weight', 'a finite number >= 0', value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
