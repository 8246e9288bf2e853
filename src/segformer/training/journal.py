"""Recording of a run in metrics.jsonl, TensorBoard and Weights & Biases, and display by its reporter."""

import time
from types import TracebackType
from typing import Any

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from segformer.files import read_json
from segformer.training.reporter import RunReporter, StepReport
from segformer.training.run_folder import RECIPE, TENSORBOARD, RunFolder, read_metrics
from segformer.training.task import Task, Validation
from segformer.training.wandb_logger import WandbLogger

MEMORY = 0.95  # decay per step of the moving average of the time of a step
WARM_UP = 5  # number of slow first steps that the average leaves out


class Journal:
    """Records the steps and evaluations of a run.

    As a context manager, it starts and stops the display of the reporter and closes the loggers.
    """

    def __init__(self, folder: RunFolder, task: Task[Any], reporter: RunReporter, *, start: int) -> None:
        self.folder = folder
        self.task = task
        self.plan = task.plan
        self.reporter = reporter
        self.start = start
        self.tensorboard = TensorBoardLogger(root_dir=folder.path, name=TENSORBOARD, version="")
        project = self.plan.wandb
        self.wandb = WandbLogger(project, folder.path, read_json(folder.path / RECIPE)) if project else None
        self.seconds_per_step: float | None = None
        self.seconds_before = max((line.get("seconds", 0.0) for line in read_metrics(folder.path)), default=0.0)
        self.opened = time.perf_counter()
        self.begin(start)

    def __enter__(self) -> "Journal":
        self.reporter.start(self.plan.steps, self.start)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.reporter.stop()
        for logger in self._loggers():
            logger.finalize("")

    def begin(self, step: int) -> None:
        """Start to time the steps after this one."""
        self.timed_from = step
        self.clock_started = time.perf_counter()

    def step(self, step: int, loss: float | None, lr: float) -> None:
        """Record a finished step; ``loss`` is None if the step is not logged."""
        self.reporter.advance(step)
        if loss is None:
            return
        seconds = self._time_of_step(step)
        rate = self.plan.batch_size / seconds
        self._log(step, {"loss": loss, "lr": lr, "images_per_second": rate})
        self.reporter.report(StepReport(step, self.plan.steps, loss, rate, seconds * (self.plan.steps - step)))

    def _time_of_step(self, step: int) -> float:
        """Return the moving average of the seconds per step, without the slow first steps of a run."""
        passed = max(step - self.timed_from, 1)
        seconds = (time.perf_counter() - self.clock_started) / passed
        kept = MEMORY**passed
        if self.seconds_per_step is not None and step - self.start >= WARM_UP:
            seconds = kept * self.seconds_per_step + (1 - kept) * seconds
        self.seconds_per_step = seconds
        self.begin(step)
        return seconds

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of an evaluation."""
        self.reporter.evaluating(done, total)

    def evaluated(self, step: int, evaluation: Validation, model: Any) -> None:
        """Record a finished evaluation; the loggers also get a picture of predictions, if the task draws one."""
        unit, count = self.task.counter(step)
        self._log_pictures(step, model)
        figures = {f"val/{name}": value for name, value in evaluation.figures.items()}
        self._log(step, figures if unit == "step" else {unit: count, **figures})
        names = sorted(evaluation.figures, key=lambda name: name != self.task.metric)
        shown = {self.task.labels.get(name, name): evaluation.figures[name] for name in names}
        self.reporter.evaluated(f"{unit} {count}", shown)
        self.begin(step)

    def note(self, line: str) -> None:
        """Show a line of text."""
        self.reporter.note(line)

    def write_page(self, model: Any, evaluation: Validation) -> None:
        """Write report.html and show its path."""
        path = self.task.write_page(model, self.folder.path, evaluation)
        self.reporter.note(f"report: {path}")

    def _log_pictures(self, step: int, model: Any) -> None:
        pictures = self.task.pictures(model)
        if pictures is None:
            return
        self.tensorboard.experiment.add_image(self.task.split, pictures, step, dataformats="HWC")
        if self.wandb is not None:
            self.wandb.log_picture(self.task.split, pictures, step)

    def _log(self, step: int, values: dict[str, float]) -> None:
        seconds = self.seconds_before + time.perf_counter() - self.opened
        self.folder.log({"step": step, "seconds": round(seconds, 1), **values})
        for logger in self._loggers():
            logger.log_metrics(values, step)

    def _loggers(self) -> list[Logger]:
        return [self.tensorboard] if self.wandb is None else [self.tensorboard, self.wandb]


class NullJournal:
    """The journal for all processes except the first one; it records nothing."""

    def __enter__(self) -> "NullJournal":
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing, because nothing is open."""

    def begin(self, *_: object) -> None:
        """Record nothing."""

    def step(self, *_: object) -> None:
        """Record nothing."""

    def evaluating(self, *_: object) -> None:
        """Record nothing."""

    def evaluated(self, *_: object) -> None:
        """Record nothing."""

    def note(self, *_: object) -> None:
        """Record nothing."""

    def write_page(self, *_: object) -> None:
        """Record nothing."""
