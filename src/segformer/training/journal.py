"""What a run tells while it goes: a progress bar or plain lines, metrics.jsonl, TensorBoard."""

import time
from types import TracebackType

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from segformer.config import TrainConfig
from segformer.data.dataset import DataSource
from segformer.evaluation.metrics import Scores
from segformer.files import read_json
from segformer.models.segmenter import Segmenter
from segformer.report.predictions import picture_grid, prediction_rows
from segformer.training.page import write_run_page
from segformer.training.run_folder import RECIPE, TENSORBOARD, RunFolder, read_metrics
from segformer.training.wandb_logger import WandbLogger

LINE_SECONDS = 30.0  # between lines where the output is no terminal


class Journal:
    """Reports a run's steps and evaluations; a context manager that owns the progress bar."""

    def __init__(self, folder: RunFolder, config: TrainConfig, *, start: int, console: Console) -> None:
        self.folder = folder
        self.config = config
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("train", total=config.steps, completed=start, figures="", left="")
        self.evaluation: TaskID | None = None
        self.tensorboard = TensorBoardLogger(root_dir=folder.path, name=TENSORBOARD, version="")
        self.wandb = WandbLogger(config.wandb, folder.path, read_json(folder.path / RECIPE)) if config.wandb else None
        self.figures = {"loss": "", "mIoU": "", "img/s": ""}
        self.seconds_per_step: float | None = None
        self.seconds_before = max((line.get("seconds", 0.0) for line in read_metrics(folder.path)), default=0.0)
        self.opened = self.started = self.printed = time.perf_counter()

    def __enter__(self) -> "Journal":
        self.bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.bar.stop()
        for logger in self._loggers():
            logger.finalize("")

    def begin(self) -> None:
        """Start the clock of a step."""
        self.started = time.perf_counter()

    def step(self, step: int, loss: float | None, lr: float) -> None:
        """Take note of a finished step; ``loss`` is given where it is to be logged."""
        seconds = time.perf_counter() - self.started
        # The first step also pays for warming up: it must not weigh on the time left for long.
        old = self.seconds_per_step
        self.seconds_per_step = seconds if old is None or step < 5 else 0.95 * old + 0.05 * seconds
        rate = self.config.batch_size / self.seconds_per_step
        left = self.seconds_per_step * (self.config.steps - step)
        if loss is not None:
            self._log(step, {"loss": loss, "lr": lr, "images_per_second": rate})
            self._show({"loss": f"loss {loss:.3f}", "img/s": f"{rate:.1f} img/s"})
            self._print_now_and_then(f"step {step}/{self.config.steps}  {self._figures()}  {clock(left)} left")
        self.bar.update(self.task, completed=step, left=f"{clock(left)} left")

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of an evaluation."""
        if self.evaluation is None:
            self.evaluation = self.bar.add_task("evaluate", total=total, figures="", left="")
        self.bar.update(self.evaluation, completed=done)

    def evaluated(self, step: int, scores: Scores, model: Segmenter, source: DataSource, split: str) -> None:
        """Take note of a finished evaluation, with pictures for TensorBoard."""
        if self.evaluation is not None:
            self.bar.remove_task(self.evaluation)
            self.evaluation = None
        pictures = picture_grid(prediction_rows(model, source, split))
        self.tensorboard.experiment.add_image(split, pictures, step, dataformats="HWC")
        if self.wandb is not None:
            self.wandb.log_picture(split, pictures, step)
        self._show({"mIoU": f"mIoU {scores.miou:.3f}"})
        self._log(step, {f"val/{name}": value for name, value in scores.summary().items()})
        self.console.print(f"step {step}: " + "  ".join(f"{k} {v:.4f}" for k, v in scores.summary().items()))

    def note(self, line: str) -> None:
        """Print a line."""
        self.console.print(line)

    def report(self, model: Segmenter, source: DataSource, split: str, scores: Scores | None) -> None:
        """Write report.html."""
        path = write_run_page(self.folder.path, model, source, split, scores)
        self.console.print(f"report: {path}", soft_wrap=True)

    def _show(self, figures: dict[str, str]) -> None:
        self.figures |= figures
        self.bar.update(self.task, figures=self._figures())

    def _figures(self) -> str:
        return "  ".join(filter(None, self.figures.values()))

    def _log(self, step: int, values: dict[str, float]) -> None:
        seconds = self.seconds_before + time.perf_counter() - self.opened
        self.folder.log({"step": step, "seconds": round(seconds, 1), **values})
        for logger in self._loggers():
            logger.log_metrics(values, step)

    def _loggers(self) -> list[Logger]:
        return [self.tensorboard] if self.wandb is None else [self.tensorboard, self.wandb]

    def _print_now_and_then(self, line: str) -> None:
        now = time.perf_counter()
        if not self.console.is_terminal and now - self.printed > LINE_SECONDS:
            self.printed = now
            self.console.print(line)


class Silence:
    """The journal of the processes that do not report."""

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def begin(self) -> None:
        """Say nothing."""

    def step(self, *_: object) -> None:
        """Say nothing."""

    def evaluating(self, *_: object) -> None:
        """Say nothing."""

    def evaluated(self, *_: object) -> None:
        """Say nothing."""

    def note(self, *_: object) -> None:
        """Say nothing."""

    def report(self, *_: object) -> None:
        """Say nothing."""


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss.

    >>> clock(3671)
    '1:01:11'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
