"""How the teacher computes, and what of it need not.

Precision, memory format and compilation are settings. Layers that no tap
depends on, such as the regression tower beside the class layer of a dense
head, are found by their missing gradient and skipped.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from mmcv.ops import RoIAlign
from mmengine.logging import print_log
from torch import Tensor, nn

from ..compat.operators import layers_with_compiled_operators
from ..errors import ConfigError, check_bools, check_choice
from .settings import TeacherSettings

PRECISIONS = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


class TeacherExecution:
    """Settings under which a frozen model runs.

    Args:
        settings (TeacherSettings): ``precision``, under autocast, defaults
            to what surrounds it; ``channels_last`` is of its convolutions,
            ``compile`` of its backbone.

    Raises:
        ConfigError: If a setting is not known.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        check_choice(
            settings.field('precision'),
            settings.precision,
            [None, *PRECISIONS],
        )
        check_bools(
            {
                settings.field(key): getattr(settings, key)
                for key in ('channels_last', 'compile')
            }
        )
        self.settings = settings
        self._operator: str | None = None

    def prepare(self, model: nn.Module) -> None:
        """Bring a model into the memory format, and compile its backbone.

        Raises:
            ConfigError: If it does not stand the format, or has no backbone.
        """
        settings = self.settings
        for name, module in layers_with_compiled_operators(model):
            if not isinstance(module, RoIAlign):  # see on_rois
                self._operator = f'{name}, a {type(module).__name__}'
                break
        if settings.channels_last:
            if self._operator:
                raise ConfigError(
                    f'{settings.field("channels_last")}: the teacher has '
                    f'{self._operator}, and operators of a compiled mmcv read '
                    f'maps in plain NCHW format; set it to False'
                )
            model.to(memory_format=torch.channels_last)
        if settings.compile:
            if not hasattr(model, 'backbone'):
                raise ConfigError(
                    f'{settings.field("compile")}: compiles a backbone, and '
                    f'{type(model).__name__} has none; set it to False'
                )
            model.get_submodule('backbone').compile()

    @contextmanager
    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Run the model within this context, on the images that it gives.

        They are those given, (N, C, H, W), in the memory format of the model.

        Raises:
            ConfigError: If the backbone cannot be compiled, or an operator
                knows no bfloat16.
        """
        formats = torch.contiguous_format, torch.channels_last
        memory_format = formats[self.settings.channels_last]
        images = images.contiguous(memory_format=memory_format)
        try:
            with self._autocast(images.device):
                self._check_precision(images.device.type)
                yield images
        except Exception as error:
            if not self.settings.compile:
                raise
            from torch._dynamo.exc import TorchDynamoException  # slow

            if not isinstance(error, TorchDynamoException):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f'{self.settings.field("compile")}: torch.compile failed on '
                f"the teacher's backbone "
                f'({lines[0][:200]}); set it to False'
            ) from error

    @contextmanager
    def on_rois(
        self, extractor: nn.Module, maps: Iterable[Tensor]
    ) -> Iterator[tuple[Tensor, ...]]:
        """Run a box head within this context.

        A compiled RoIAlign takes any memory for a plain NCHW one, so that
        channels-last maps give wrong numbers without an error; it has no
        bfloat16; and boxes, which it wants in the precision of the map,
        would lie beside their objects in half of it. On the CPU that of
        torchvision gives the same values in about half of the time. Where
        mmcv's operators are torchvision's, only the boxes matter.

        Args:
            extractor (nn.Module): What pools the RoIs.
            maps (Iterable[Tensor]): Features of the neck, (N, C, H, W).

        Yields:
            tuple[Tensor, ...]: The maps, contiguous, in float32 or better.
        """
        pooled = tuple(
            x.to(torch.promote_types(x.dtype, torch.float32)).contiguous()
            for x in maps
        )
        device = pooled[0].device
        for layer in extractor.modules():
            if isinstance(layer, RoIAlign) and layer.pool_mode == 'avg':
                layer.use_torchvision = device.type == 'cpu'
        with self._autocast(device):
            yield pooled

    def _check_precision(self, device: str) -> None:
        if (
            self._operator
            and torch.is_autocast_enabled(device)
            and torch.get_autocast_dtype(device) == torch.bfloat16
        ):
            raise ConfigError(
                f'{self.settings.field("precision")}: the teacher has '
                f'{self._operator}, and operators of a compiled mmcv know no '
                f"bfloat16; set it to 'float32'"
            )

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        precision = self.settings.precision
        if precision is None:
            return nullcontext()
        return torch.autocast(
            device.type,
            PRECISIONS[precision],
            enabled=precision != 'float32',
        )


def unneeded_layers(
    layers: Iterable[nn.Module],
    run: Callable[[], Iterable[Tensor]],
    label: str = 'teacher',
) -> list[nn.Conv2d]:
    """Convolutions that what is tapped does not depend on.

    They are found by their missing gradient, and then skipped for a trial:
    where a bit of a value depends on them all the same, or the model has no
    gradient, nothing is skipped, and the log says so.

    Args:
        layers (Iterable[nn.Module]): Layers to choose from; frozen.
        run (Callable): Runs the model and gives what is tapped.
        label (str): What the log calls the model.
    """
    idle = [
        x
        for x in layers
        if type(x) is nn.Conv2d and not isinstance(x.padding, str)
    ]
    if not idle:
        return []
    weights = [x.weight.requires_grad_() for x in idle]
    try:
        with torch.enable_grad():
            tapped = [x.sum() for x in run() if x.requires_grad]
            gradients: Any = [None] * len(weights)
            if tapped:
                gradients = torch.autograd.grad(
                    tapped, weights, allow_unused=True
                )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # an operator without a gradient
        if 'DefaultCPUAllocator' in str(error):  # full memory, on the CPU
            raise
        print_log(f'{label}: all of its head runs ({error})', 'current')
        return []
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    pairs = zip(idle, gradients, strict=True)
    unneeded = [layer for layer, gradient in pairs if gradient is None]
    if not unneeded:
        return []
    with torch.no_grad(), _deterministic():
        expected = list(run())
        with skipped(unneeded):
            found_values = list(run())
    same = len(expected) == len(found_values) and all(
        map(torch.equal, expected, found_values)
    )
    if expected and same:
        return unneeded
    print_log(
        f'{label}: all of its head runs, since what is tapped is not bit for '
        f'bit the same without {len(unneeded)} layers that get no gradient',
        'current',
    )
    return []


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let cudnn give equal bits for equal inputs.

    Else it may time its algorithms and take another one in the next run.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def skipped(layers: Iterable[nn.Conv2d]) -> Iterator[None]:
    """Let convolutions give zeros of the right shape."""
    before = [(layer, vars(layer).get('forward')) for layer in layers]
    for layer, _ in before:
        layer.forward = partial(_zeros, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer, forward in before:
            if forward is None:
                del layer.forward
            else:  # of a context around this one, or of the user
                layer.forward = forward  # type: ignore[method-assign]


def _zeros(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """What a convolution gives, with 0 in place of its values."""
    geometry: Any = zip(
        inputs.shape[2:],
        layer.padding,
        layer.dilation,
        layer.kernel_size,
        layer.stride,
        strict=True,
    )
    sizes = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, padding, dilation, kernel, stride in geometry
    ]
    return inputs.new_zeros(len(inputs), layer.out_channels, *sizes)
