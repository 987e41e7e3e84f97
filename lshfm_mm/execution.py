"""How the teacher computes: precision, memory format, compilation."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from .errors import ConfigError

PRECISIONS = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


class TeacherExecution:
    """Settings under which a frozen model runs.

    Args:
        precision (str, optional): 'float32', 'bfloat16' or 'float16', under
            autocast. Defaults to what surrounds it.
        channels_last (bool): Whether convolutions run in channels-last
            memory format.
        compiled (bool): Whether the backbone is compiled.

    Raises:
        ConfigError: If a setting is not known.
    """

    def __init__(
        self, precision: str | None, channels_last: bool, compiled: bool
    ) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise ConfigError(
                f'teacher_precision: must be None or one of '
                f'{tuple(PRECISIONS)}, but got {precision!r}'
            )
        for field, value in (
            ('teacher_channels_last', channels_last),
            ('teacher_compile', compiled),
        ):
            if not isinstance(value, bool):
                raise ConfigError(
                    f'{field}: must be True or False, but got {value!r}'
                )
        self.precision = precision
        self.channels_last = channels_last
        self.compiled = compiled

    def prepare(self, model: nn.Module) -> None:
        """Bring a model into the memory format, and compile its backbone."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.compiled:
            model.get_submodule('backbone').compile()

    @contextmanager
    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Run the model within this context.

        Args:
            images (Tensor): Images, (N, C, H, W).

        Yields:
            Tensor: The images, in the memory format of the model.

        Raises:
            ConfigError: If the backbone cannot be compiled.
        """
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        precision: AbstractContextManager[Any] = nullcontext()
        if self.precision is not None:
            precision = torch.autocast(
                images.device.type,
                PRECISIONS[self.precision],
                enabled=self.precision != 'float32',
            )
        try:
            with precision:
                yield images
        except TorchDynamoException as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"teacher_compile: torch.compile failed on the teacher's "
                f'backbone ({lines[0][:200]}); set it to False'
            ) from error
