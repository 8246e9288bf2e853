"""The display of a training run: a progress bar on a terminal, lines of text elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from segformer.training.reporter import LINE_SECONDS, StepReport, clock, evaluation_line

WIDE = 100  # columns; a terminal of at least this width has room for the elapsed time and a long bar
NARROW_BAR = 10  # columns of the bar on narrower terminals


class RunProgress:
    """Shows the progress of a training run on a console; ``train`` and ``pretrain`` report to it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        is_wide = self.console.width >= WIDE
        elapsed = [TimeElapsedColumn()] if is_wide else []
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None if is_wide else NARROW_BAR),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            *elapsed,
            TextColumn("{task.fields[left]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.steps: TaskID | None = None
        self.evaluation: TaskID | None = None
        self.step_figures = ("", "")
        self.score = ""
        self.printed = time.monotonic()

    def note(self, line: str) -> None:
        """Print a line of text."""
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def start(self, steps: int, done: int) -> None:
        """Show the progress bar of a run with ``steps`` steps, of which ``done`` are already done."""
        if self.steps is not None:  # the bar of an earlier run
            self.bar.remove_task(self.steps)
        self.steps = self.bar.add_task("train", total=steps, completed=done, figures="", left="")
        self.step_figures = ("", "")
        self.score = ""
        self.bar.start()

    def advance(self, step: int) -> None:
        """Move the progress bar to a step."""
        if self.steps is not None:
            self.bar.update(self.steps, completed=step)

    def report(self, report: StepReport) -> None:
        """Show loss, speed and remaining time in the bar; without a terminal, print them at most every 30 seconds."""
        self.step_figures = (f"loss {report.loss:.3f}", f"{report.images_per_second:.1f} img/s")
        left = f"{clock(report.seconds_left)} left"
        if self.steps is not None:
            self.bar.update(self.steps, figures=self._figures(), left=left)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.printed > LINE_SECONDS:
            self.printed = now
            self.note(f"step {report.step}/{report.steps}  {self._figures()}  {left}")

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of an evaluation in a second bar."""
        if self.evaluation is None:
            self.evaluation = self.bar.add_task("evaluate", total=total, figures="", left="")
        self.bar.update(self.evaluation, completed=done)

    def evaluated(self, position: str, figures: Mapping[str, float]) -> None:
        """Print the scores of an evaluation after the text ``position``; show the first score in the bar."""
        if self.evaluation is not None:
            self.bar.remove_task(self.evaluation)
            self.evaluation = None
        name, value = next(iter(figures.items()))
        self.score = f"{name} {value:.3f}"
        if self.steps is not None:
            self.bar.update(self.steps, figures=self._figures())
        self.note(evaluation_line(position, figures))

    def stop(self) -> None:
        """Stop updating the progress bar."""
        self.bar.stop()

    def _figures(self) -> str:
        loss, rate = self.step_figures
        return "  ".join(filter(None, (loss, self.score, rate)))
