"""Logs how well features agree."""

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..distillers.alignment import alignment_means, alignment_sums, lsh_loss_of
from ..distillers.level_pairs import TapObservation
from ..errors import ConfigError, check_int
from ..utils.listener import Listener
from .distillation import distillation_of


@HOOKS.register_module()
class AlignmentHook(Hook):
    """Logs how well the student's features agree with the teacher's.

    Of the batch that is trained on, without a second forward pass, over all
    ranks: ``{tap}.angle`` in degrees, ``{tap}.norm_ratio``, the student's
    mean norm over the teacher's, and at taps with an :class:`LSHLoss`
    ``{tap}.equal_codes``, the share of hash codes that agree. They stand in
    the log beside the losses, and in what else the visualizer writes to.

    Args:
        interval (int): Iterations from one to the next. Defaults to 50.

    Raises:
        ConfigError: If it is out of its range.
    """

    def __init__(self, interval: int = 50) -> None:
        check_int('AlignmentHook.interval', interval)
        self.interval = interval
        self._runner: Runner

    def before_train(self, runner: Runner) -> None:
        """Look at what the losses compare."""
        model = distillation_of(self, runner)
        for tap in model.distiller.taps:
            if 'loss' in tap:
                raise ConfigError(
                    f'taps.{tap}: is the name of a statistic in the log, and '
                    f"what has 'loss' in its name is taken for one; rename it"
                )
        self._runner = runner
        self._distiller = model.distiller
        model.distiller.observers.append(Listener(self._observe))

    def _observe(
        self, values: dict[str, Tensor], seen: dict[str, TapObservation]
    ) -> None:
        runner = self._runner
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, tap in seen.items():
            lsh = lsh_loss_of(self._distiller, name)
            hashes = (None, None) if lsh is None else (lsh.weight, lsh.bias)
            sums = alignment_sums(tap.features(), *hashes)
            sums = sums.to(next(iter(values.values())).device)
            dist.all_reduce(sums)
            for key, value in alignment_means(sums).items():
                runner.message_hub.update_scalar(f'train/{name}.{key}', value)
