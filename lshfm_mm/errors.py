"""The errors that the tools print as one line."""


class ConfigError(ValueError):
    """A setting, file or tensor is not what it must be.

    The message is one line that names the field, the value that was found
    and the fix. The tools print it without a traceback.
    """


class NonFiniteError(FloatingPointError):
    """A loss is NaN or infinite, and training on would spoil the student."""
