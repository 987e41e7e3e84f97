"""No registered type or documented function changes its name or arguments.

``python -m tests.test_api`` (``make api``) writes the list, tests/api.txt.
Modules are not in it: they may move.
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from mmengine.registry import Registry

LIST = Path(__file__).with_name('api.txt')
REFERENCE = Path(__file__).parent.parent / 'docs/reference.md'


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


def documented() -> set[object]:
    """What docs/reference.md names."""
    page = REFERENCE.read_text('utf-8')
    names = []
    for kind, path, options in re.findall(
        r'^\.\. auto(\w+):: (\S+)\n((?: +:.*\n)*)', page, re.M
    ):
        members = re.findall(r' :members: (.+)', options)
        names += [f'{path}.{x}' for line in members for x in line.split(', ')]
        if kind != 'module':
            names.append(path)
    return {pkgutil.resolve_name(x) for x in names}


def listing() -> str:
    """The registered types, then the rest of the reference."""
    rest = documented()  # first, for types that are imported where needed
    types = set()
    for package in ('mmdet', 'mmengine', 'mmpretrain', 'mmrazor'):
        registries = importlib.import_module(f'{package}.registry')
        for registry in vars(registries).values():
            if not isinstance(registry, Registry):
                continue
            for key, value in registry.module_dict.items():
                if value.__module__.startswith('lshfm_mm.'):
                    name = f'{registry.scope} {registry.name}: {key}'
                    types.add(name + signature(value))
                    rest.discard(value)
    others = [f'{x.__qualname__}{signature(x)}' for x in rest]
    return '\n'.join(sorted(types) + sorted(others)) + '\n'


def test_the_public_names_are_those_of_the_list():
    """If this is meant, run ``make api`` and look at the difference."""
    assert listing() == LIST.read_text('utf-8')


if __name__ == '__main__':
    LIST.write_text(listing(), 'utf-8')
