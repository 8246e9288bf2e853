"""The training loop: it trains any task and writes a run folder."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from segformer.data.loading import iterate
from segformer.errors import UserError, is_out_of_memory
from segformer.training.journal import Journal, NullJournal
from segformer.training.optim import averaged, set_learning_rate
from segformer.training.processes import agree_to_stop, device_name, lost_processes, on_rank_zero, stop_signals
from segformer.training.progress import Progress
from segformer.training.reporter import RunReporter, SilentReporter
from segformer.training.run_folder import RunFolder
from segformer.training.step import check_finite, optimizer_step
from segformer.training.task import Batch, Note, Task, Validation


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run; ``interrupted`` is the signal that stopped the run early, or None."""

    run_dir: Path
    step: int
    best: float
    best_step: int
    interrupted: signal.Signals | None


def run_task(
    open_task: Callable[[], Task[Any]], fabric: Fabric, folder: RunFolder, *, resume: bool, reporter: RunReporter
) -> Outcome:
    """Train a task in a new run folder, or resume the run that the folder contains.

    After Ctrl-C or SIGTERM, the current step is finished, the state is saved, and the function returns.  Raises a
    UserError for anything that a user can correct.
    """
    reporter = reporter if fabric.global_rank == 0 else SilentReporter()
    task = on_rank_zero(fabric, lambda: open_run(open_task, fabric, folder, resume, reporter.note)) or open_task()
    reporter.note(task.announcement(fabric))
    exact = determinism(task.plan.deterministic)
    with torch.random.fork_rng(), stop_signals() as stop, lost_processes(fabric), exact:
        torch.manual_seed(task.plan.seed)
        run = Run(fabric, task, folder, stop, reporter.note)
        with run.open_journal(reporter) as journal:
            run.steps(journal)
            run.finish(journal)
    return run.outcome()


def open_run(
    open_task: Callable[[], Task[Any]], fabric: Fabric, folder: RunFolder, resume: bool, note: Note
) -> Task[Any]:
    """Create a task, check everything that could make it fail, and open its run folder."""
    task = open_task()
    task.check(fabric.world_size, resume=resume)
    for line in task.notes:
        note(f"note: {line}")
    folder.open(task.recipe, resume=resume, read=task.read_recipe)
    return task


@contextmanager
def determinism(on: bool) -> Iterator[None]:
    """If ``on``, torch uses a deterministic algorithm inside the block for every operation that has one."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on or before, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class Run:
    """State of one training run: model, optimizer, progress, run folder."""

    def __init__(
        self, fabric: Fabric, task: Task[Any], folder: RunFolder, stop: list[signal.Signals], note: Note
    ) -> None:
        self.fabric = fabric
        self.task = task
        self.plan = task.plan
        self.folder = folder
        self.stop = stop
        self.progress = Progress(best=task.worst)
        self.evaluation: Validation | None = None
        self.model: nn.Module = task.build(folder.last, note)
        state = folder.load_trainer()
        if state is not None:
            task.restore(self.model, state, folder.last)
        self.module, self.optimizer = fabric.setup(task.prepare(self.model, fabric), task.build_optimizer(self.model))
        self.average = averaged(self.model, self.plan.ema)
        if state is not None:
            self.restore(state)
        on_rank_zero(fabric, self.open_records)

    def restore(self, state: dict[str, Any]) -> None:
        """Load a saved state: optimizer, precision, progress and averaged weights; the task restores the weights."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.progress = Progress.from_state(state["progress"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def open_records(self) -> None:
        """Write manifest.json, and remove the lines of metrics.jsonl that were logged after the last save."""
        self.folder.drop_after(self.progress.step)
        machine = {"processes": self.fabric.world_size, "device": device_name(self.fabric.device)}
        self.folder.write_manifest(self.task.facts() | {"started_at_step": self.progress.step} | machine)

    def open_journal(self, reporter: RunReporter) -> Journal | NullJournal:
        """Return the journal of the run; in all processes but the first, it records nothing."""
        if self.fabric.global_rank:
            return NullJournal()
        return Journal(self.folder, self.task, reporter, start=self.progress.step)

    @property
    def eval_model(self) -> nn.Module:
        """The model that is evaluated and saved as the best: the one with averaged weights, if there is an average."""
        return self.model if self.average is None else self.average.module

    def steps(self, journal: Journal | NullJournal) -> None:
        """Take the remaining steps, with the evaluations between them."""
        start = self.progress.step
        self.evaluate_if_due(journal)  # repeats an evaluation that a signal interrupted before the run was resumed
        if agree_to_stop(self.fabric, self.stop) or self.out_of_patience():
            return
        batches = self.task.batches(start, rank=self.fabric.global_rank, world_size=self.fabric.world_size)
        journal.begin(start)
        for step, batch in enumerate(iterate(batches), start=start):
            set_learning_rate(self.optimizer, lr := self.task.learning_rate(step))
            loss = self.step(step, batch)
            self.progress.step = step + 1
            self.log(journal, loss, lr)
            self.evaluate_if_due(journal)
            if agree_to_stop(self.fabric, self.stop):
                self.save()
                return
            if self.out_of_patience():
                return

    def step(self, step: int, batch: Batch) -> Tensor:
        """Update the weights and their average; returns the loss."""
        seed = self.task.seed_of_step(step, self.fabric.global_rank)
        torch.manual_seed(seed)  # dropout and stochastic depth are functions of the step
        try:
            batch = self.task.augment(self.fabric.to_device(batch), seed)
            loss = optimizer_step(self.fabric, self.module, self.optimizer, batch, self.task)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(f"out of memory at step {step}; {self.task.memory_advice}") from error
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss

    def log(self, journal: Journal | NullJournal, loss: Tensor, lr: float) -> None:
        """Record the step, with its loss if a log line is due.

        Raises a UserError if the loss is NaN or infinite; it is checked only if it is logged or after a stop signal.
        """
        done = self.progress.step
        is_logged = done % self.plan.log_every == 0 or self.is_due()
        if is_logged or self.stop:
            check_finite(loss.item(), done - 1, self.folder.last, self.task.divergence_advice)
        journal.step(done, loss.item() if is_logged else None, lr)

    def is_due(self) -> bool:
        """Return whether an evaluation is due after this step."""
        step = self.progress.step
        return step == self.plan.steps or step % self.plan.eval_every == 0

    def evaluate_if_due(self, journal: Journal | NullJournal) -> None:
        """Evaluate and save if an evaluation is due.

        In a run with one process, a stop signal aborts the evaluation, which is repeated when the run is resumed.
        """
        step = self.progress.step
        if not self.is_due() or step == self.progress.evaluated:
            return
        alone = self.fabric.world_size == 1

        def watch(done: int, total: int) -> None:
            journal.evaluating(done, total)
            if self.stop and alone:  # several processes would all have to leave at the same image
                raise Stopped

        try:
            evaluation = self.task.evaluate(self.eval_model, self.fabric, watch)
        except Stopped:
            return
        self.evaluation = evaluation
        journal.evaluated(step, evaluation, self.eval_model)
        self.keep(step, evaluation)

    def keep(self, step: int, evaluation: Validation) -> None:
        """Save the state after an evaluation; if the model is the best so far, save it as the best model, too."""
        for model in {self.model, self.eval_model}:
            self.task.stamp(model, step, evaluation)
        self.progress.evaluated = step
        value = evaluation.figures[self.task.metric]
        if self.task.is_better(value, self.progress.best):
            self.progress.best = value
            self.progress.best_step = step
            if self.fabric.global_rank == 0:
                self.task.write_best(self.eval_model, self.folder.best, step, evaluation)
        self.save()

    def save(self) -> None:
        """Save everything that is needed to resume from this step."""
        if self.fabric.global_rank == 0:
            state = {
                **self.task.state(self.model),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "progress": self.progress.to_state(),
            }
            self.folder.save_last(state, lambda partial: self.task.write_last(self.model, partial))
        self.fabric.barrier()

    def out_of_patience(self) -> bool:
        """Return whether none of the last ``patience`` evaluations gave a better result."""
        plan, progress = self.plan, self.progress
        waited = (progress.evaluated - progress.best_step) // plan.eval_every
        return plan.patience is not None and progress.evaluated == progress.step and waited >= plan.patience

    def finish(self, journal: Journal | NullJournal) -> None:
        """Tell the user if training stopped early, and write the report page.

        No page is written after a stop signal, or if the run was already finished when it was resumed.
        """
        if self.out_of_patience() and self.progress.step < self.plan.steps:
            name = self.task.labels.get(self.task.metric, self.task.metric)
            journal.note(f"stopped early: {self.plan.patience} evaluations without a better {name}")
        if self.evaluation is not None and not self.stop:
            journal.write_page(self.eval_model, self.evaluation)

    def outcome(self) -> Outcome:
        """Return the outcome of the run."""
        progress = self.progress
        finished = progress.evaluated == self.plan.steps or self.out_of_patience()
        stopped = self.stop[0] if self.stop and not finished else None
        return Outcome(self.folder.path, progress.step, progress.best, progress.best_step, stopped)


class Stopped(Exception):  # noqa: N818  # not an error
    """Raised to leave an evaluation after a stop signal."""
