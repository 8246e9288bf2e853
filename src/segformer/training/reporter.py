"""Reporters show the progress of a training run: the interface, and two reporters that need no terminal."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0  # minimum time between two lines about steps in the log


@dataclass(frozen=True)
class StepReport:
    """Loss and speed at a logged step."""

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
    """Shows the progress of a run; ``start`` is called before the first step and ``stop`` after the last one."""

    def note(self, line: str) -> None:
        """Show a line of text."""
        ...

    def start(self, steps: int, done: int) -> None:
        """Start to show the steps; ``done`` is the number of steps that a resumed run has taken before."""
        ...

    def advance(self, step: int) -> None:
        """Show that a step is finished."""
        ...

    def report(self, report: StepReport) -> None:
        """Show loss, speed and remaining time at a logged step."""
        ...

    def evaluating(self, done: int, total: int) -> None:
        """Show how many of the ``total`` images of an evaluation are done."""
        ...

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        """Show the metrics of an evaluation; ``position`` says when it took place, for example "step 400"."""
        ...

    def stop(self) -> None:
        """End the display of the steps."""
        ...


class SilentReporter:
    """A reporter that shows nothing."""

    def note(self, line: str) -> None:
        """Show nothing."""

    def start(self, steps: int, done: int) -> None:
        """Show nothing."""

    def advance(self, step: int) -> None:
        """Show nothing."""

    def report(self, report: StepReport) -> None:
        """Show nothing."""

    def evaluating(self, done: int, total: int) -> None:
        """Show nothing."""

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Show nothing."""


class LogReporter(SilentReporter):
    """Writes progress to the log of this module, with at most one line about steps every 30 seconds."""

    def __init__(self) -> None:
        self.written = time.monotonic()

    def note(self, line: str) -> None:
        """Log a line of text."""
        log.info("%s", line)

    def report(self, report: StepReport) -> None:
        """Log a step, unless another step was logged in the last 30 seconds."""
        now = time.monotonic()
        if now - self.written > LINE_SECONDS:
            self.written = now
            log.info("%s", report)

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        """Log the metrics of an evaluation in one line."""
        log.info("%s", evaluation_line(position, figures))


def evaluation_line(position: str, figures: Mapping[str, float]) -> str:
    """Return the metrics of an evaluation as one line of text.

    >>> evaluation_line("step 40", {"mIoU": 0.5, "mAcc": 0.625})
    'step 40: mIoU 0.5000  mAcc 0.6250'
    """
    return f"{position}: " + "  ".join(f"{name} {value:.4f}" for name, value in figures.items())


def clock(seconds: float) -> str:
    """Return a number of seconds as h:mm:ss or m:ss.

    >>> clock(3671)
    '1:01:11'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
