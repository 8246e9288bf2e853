"""What a pre-training run tells while it goes."""

import time

from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from segformer.pretraining.recipes import PretrainRecipe
from segformer.training.journal import LINE_SECONDS, clock
from segformer.training.run_folder import TENSORBOARD, RunFolder


class PretrainJournal:
    """Reports a run's steps and evaluations; a context manager that owns the progress bar."""

    def __init__(self, folder: RunFolder, recipe: PretrainRecipe, total: int, *, start: int, console: Console) -> None:
        self.folder, self.recipe, self.total, self.console = folder, recipe, total, console
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
        shown = (TextColumn("{task.fields[figures]}"), TimeElapsedColumn())
        self.bar = Progress(*columns, *shown, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("pretrain", total=total, completed=start, figures="")
        self.evaluation: TaskID | None = None
        self.tensorboard = TensorBoardLogger(root_dir=folder.path, name=TENSORBOARD, version="")
        self.top1 = ""
        self.done = self.since = start  # steps, now and when the clock was started
        self.started = self.printed = time.perf_counter()

    def __enter__(self) -> "PretrainJournal":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.tensorboard.finalize("")

    def begin(self) -> None:
        """Start the clock; evaluations do not count."""
        self.since, self.started = self.done, time.perf_counter()

    def step(self, step: int, loss: float | None, lr: float) -> None:
        """Take note of a finished step; ``loss`` is given where it is to be logged."""
        self.done = step
        self.bar.update(self.task, completed=step)
        if loss is None:
            return
        now = time.perf_counter()
        rate = (step - self.since) / (now - self.started)
        self.since, self.started = step, now
        self._log(step, {"loss": loss, "lr": lr, "images_per_second": rate * self.recipe.batch_size})
        left = f"{clock((self.total - step) / rate)} left"
        figures = "  ".join(filter(None, (f"loss {loss:.3f}", self.top1, f"{rate:.2f} steps/s", left)))
        self.bar.update(self.task, figures=figures)
        if not self.console.is_terminal and now - self.printed > LINE_SECONDS:
            self.printed = now
            self.console.print(f"step {step}/{self.total}  {figures}")

    def evaluating(self, done: int, total: int) -> None:
        """Show the progress of an evaluation."""
        if self.evaluation is None:
            self.evaluation = self.bar.add_task("evaluate", total=total, figures="")
        self.bar.update(self.evaluation, completed=done)

    def evaluated(self, step: int, epoch: int, scores: dict[str, float]) -> None:
        """Take note of a finished evaluation."""
        if self.evaluation is not None:
            self.bar.remove_task(self.evaluation)
            self.evaluation = None
        self.top1 = f"top-1 {scores['top1']:.3f}"
        self._log(step, {"epoch": epoch, **{f"val/{name}": value for name, value in scores.items()}})
        self.console.print(f"epoch {epoch}: top-1 {scores['top1']:.4f}  top-5 {scores['top5']:.4f}")

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.folder.log({"step": step, **values})
        self.tensorboard.log_metrics(values, step)
