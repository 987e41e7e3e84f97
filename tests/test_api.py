"""No public name vanishes, and no signature changes, unnoticed.

``python tests/test_api.py`` (``make api``) writes the list, tests/api.txt.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path

from mmengine.registry import Registry

import lshfm_mm

LIST = Path(__file__).with_name('api.txt')


def signature(value: object) -> str:
    """Names and defaults; types look different from torch to torch."""
    try:
        found = inspect.signature(value)
    except ValueError:  # an exception has none
        return ''
    bare = [
        x.replace(annotation=inspect.Parameter.empty)
        for x in found.parameters.values()
    ]
    empty = inspect.Signature.empty
    return str(found.replace(parameters=bare, return_annotation=empty))


def listing() -> str:
    """Each module's functions and classes, then what is registered."""
    lines = []
    for module in pkgutil.iter_modules(lshfm_mm.__path__, 'lshfm_mm.'):
        members = inspect.getmembers(importlib.import_module(module.name))
        lines += [
            f'{module.name}.{key}{signature(value)}'
            for key, value in members
            if inspect.isclass(value) or inspect.isfunction(value)
            if value.__module__ == module.name
            if not key.startswith('_')
        ]
    for package in ('mmengine', 'mmpretrain', 'mmrazor'):
        registries = importlib.import_module(f'{package}.registry')
        for registry in vars(registries).values():
            if isinstance(registry, Registry):
                lines += [
                    f'{registry.scope} {registry.name}: {key}'
                    for key, value in registry.module_dict.items()
                    if value.__module__.startswith('lshfm_mm')
                ]
    return '\n'.join(sorted(set(lines))) + '\n'


def test_the_public_names_are_those_of_the_list():
    """If this is meant, run ``make api`` and look at the difference."""
    assert listing() == LIST.read_text()


if __name__ == '__main__':
    LIST.write_text(listing())
