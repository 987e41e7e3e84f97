"""Hooks of torch that a copy of their model leaves out."""

from collections.abc import Callable
from typing import Any


class Listener:
    """Calls a function from inside the model that is trained.

    A copy of the model (a deep one, or a pickle) has None in its place: the
    function looks at one training, and may hold what cannot be copied.
    """

    def __init__(self, function: Callable[..., Any] | None) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        if self.function is not None:
            return self.function(*args)
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return Listener, (None,)
