"""What a training run tells whoever started it: the contract, and the two reporters that need no terminal."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0  # between two lines about steps where there is no terminal


@dataclass(frozen=True)
class StepReport:
    """Figures of a step that is logged."""

    step: int
    steps: int
    """Number of steps of the whole run."""
    loss: float
    images_per_second: float
    seconds_left: float
    """Estimated time until the last step, without evaluations."""

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.3f}  {self.images_per_second:.1f} img/s  "
            f"{clock(self.seconds_left)} left"
        )


class RunReporter(Protocol):
    """Shows a run while it goes on; ``start`` and ``stop`` enclose its steps."""

    def note(self, line: str) -> None:
        """Show a line of text."""
        ...

    def start(self, steps: int, done: int) -> None:
        """Begin to show the steps, some of which are done already in a resumed run."""
        ...

    def advance(self, step: int) -> None:
        """Show that a step is finished."""
        ...

    def report(self, report: StepReport) -> None:
        """Show the figures of a step."""
        ...

    def evaluating(self, done: int, total: int) -> None:
        """Show how many images of an evaluation are done."""
        ...

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        """Show the figures of an evaluation, the deciding one first; ``position`` is such as "step 400"."""
        ...

    def stop(self) -> None:
        """End the display of the steps."""
        ...


class SilentReporter:
    """Shows nothing."""

    def note(self, line: str) -> None:
        """Ignore it."""

    def start(self, steps: int, done: int) -> None:
        """Ignore it."""

    def advance(self, step: int) -> None:
        """Ignore it."""

    def report(self, report: StepReport) -> None:
        """Ignore it."""

    def evaluating(self, done: int, total: int) -> None:
        """Ignore it."""

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        """Ignore it."""

    def stop(self) -> None:
        """Ignore it."""


class LogReporter(SilentReporter):
    """Writes to the log of this module, about steps at most every 30 seconds."""

    def __init__(self) -> None:
        self.written = time.monotonic()

    def note(self, line: str) -> None:
        """Log a line."""
        log.info("%s", line)

    def report(self, report: StepReport) -> None:
        """Log a step if the last line about one is old enough."""
        now = time.monotonic()
        if now - self.written > LINE_SECONDS:
            self.written = now
            log.info("%s", report)

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        """Log an evaluation."""
        log.info("%s", evaluation_line(position, figures))


def evaluation_line(position: str, figures: Mapping[str, float]) -> str:
    """Write an evaluation on one line.

    >>> evaluation_line("step 40", {"mIoU": 0.5, "mAcc": 0.625})
    'step 40: mIoU 0.5000  mAcc 0.6250'
    """
    return f"{position}: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items())


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss or m:ss.

    >>> clock(3671)
    '1:01:11'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
