"""Which layers a student has mimicked, as its checkpoint tells."""

import ast
from collections.abc import Mapping
from typing import Any

from ..distillers.taps import Tap


def mimicked_layers(content: Mapping[str, Any]) -> list[str] | None:
    """Read which layers the training of a checkpoint has tapped.

    Args:
        content (dict): Of the checkpoint; MMEngine leaves the config in it,
            as text, which is read and not run.

    Returns:
        list[str]: Such as 'input of head.fc'; none, if nothing was mimicked.
        None where the checkpoint does not tell, as an exported one, or the
        config has no taps but MMRazor's recorders.
    """
    text = (content.get('meta') or {}).get('cfg')
    try:
        tree = ast.parse(text or '')
    except (SyntaxError, TypeError):  # it may be anything
        return None
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == 'model'
        ):
            distiller = _value(node.value).get('distiller')
            if distiller is None:
                return []
            taps, used = distiller.get('taps') or {}, distiller.get('active')
            parsed = [
                Tap.parse(name, tap)
                for name, tap in taps.items()
                if used is None or name in used
            ]
            return sorted(f'{x.record} of {x.student}' for x in parsed) or None
    return None


def _value(node: ast.AST) -> Any:
    """What an expression of a dumped config stands for."""
    if isinstance(node, ast.Call):  # dict(...)
        return {str(x.arg): _value(x.value) for x in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [x and _value(x) for x in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(x) for x in node.elts]
    return node.value if isinstance(node, ast.Constant) else None
