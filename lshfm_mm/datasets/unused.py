"""What of a data set is left out, counted, and said in one line."""

from pathlib import Path

from mmengine.logging import print_log

from ..errors import ConfigError


class Unused:
    """Counts what a data set leaves out, by reason, with a first example."""

    def __init__(self) -> None:
        self.reasons: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, example: object) -> None:
        """Count one."""
        count, first = self.reasons.get(reason, (0, str(example)))
        self.reasons[reason] = count + 1, first

    @property
    def count(self) -> int:
        """How many are left out."""
        return sum(x for x, _ in self.reasons.values())

    def tell(
        self,
        field: str,
        path: Path,
        total: int,
        what: str,
        fix: str,
        may_be_all: bool = False,
    ) -> None:
        """Warn if some of ``total`` are left out.

        Raises:
            ConfigError: If all are, and the training has no use for that.
        """
        count = self.count
        if not count:
            return
        facts = ', '.join(
            f'{reason} ({number:,}, first {example})'
            for reason, (number, example) in sorted(
                self.reasons.items(), key=lambda x: -x[1][0]
            )
        )
        if count == total and not may_be_all:
            raise ConfigError(
                f'{field}: none of the {total:,} {what} of {path} is used: '
                f'{facts}; {fix}'
            )
        warn(
            f'{field}: {count:,} of the {total:,} {what} of {path} are not '
            f'used: {facts}'
        )


def warn(message: str) -> None:
    """Print a line where the training goes on."""
    print_log(message, 'current', level=30)
