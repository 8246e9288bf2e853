"""One training run: recipe in, run folder out."""

import copy
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from segformer.checkpoints.model_folder import read_model_folder
from segformer.config import Recipe
from segformer.data.dataset import DataSource
from segformer.data.loading import SegmentationDataset, iterate, seed_of
from segformer.data.sources.catalog import open_data
from segformer.evaluation.evaluate import score
from segformer.models.segmenter import Segmenter
from segformer.recipes import find_recipe
from segformer.training.journal import Journal, Silence
from segformer.training.loader import StepBatches, build_loader
from segformer.training.optim import averaged, build_optimizer, learning_rate, set_learning_rate
from segformer.training.preparation import (
    build_initialized,
    check_data,
    describe_data,
    prepare_model,
    step_in_words,
    training_set,
    with_class_weights,
)
from segformer.training.processes import agree_to_stop, build_fabric, device_name, first, lost_processes, stop_signals
from segformer.training.run_folder import RunFolder
from segformer.training.step import check_finite, optimizer_step, out_of_memory

if TYPE_CHECKING:
    from segformer.evaluation.metrics import Scores


@dataclass(frozen=True)
class TrainResult:
    """What a run came to; ``interrupted`` is the signal that ended it early, if one did."""

    run_dir: Path
    step: int
    best_miou: float
    best_step: int
    interrupted: signal.Signals | None


def train(
    recipe: Recipe | str,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    console: Console | None = None,
) -> TrainResult:
    """Train as a recipe (or the name of one, or a recipe.json) says; the run folder is ``runs/<recipe>`` unless given.

    ``devices`` is how many of this kind to use, on each of ``nodes`` machines; where torchrun or SLURM started the
    processes, they say it.  Ctrl-C and SIGTERM save and return after the current step; ``resume`` goes on from the
    last save, and ends with the weights that an uninterrupted run has.  Raises UserError or
    UserError for what a user can mend.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    fabric = build_fabric(recipe.train.precision, device, devices, nodes)
    console = (console or Console()) if fabric.global_rank == 0 else Console(quiet=True)
    folder = RunFolder(Path(run_dir or Path("runs") / recipe.name))
    source = first(fabric, lambda: check(recipe, folder, resume=resume, console=console)) or open_data(recipe.data)
    if fabric.global_rank == 0:
        announce(fabric, recipe, source, console)
    exact = determinism(recipe.train.deterministic)
    with torch.random.fork_rng(), stop_signals() as stop, lost_processes(fabric), exact:
        torch.manual_seed(recipe.train.seed)
        model = build_initialized(recipe, source, folder, console)
        run = Run(fabric, with_class_weights(recipe, source), folder, source, model, stop)
        watcher = Journal(folder, recipe.train, start=run.progress["step"], console=console)
        with watcher if fabric.global_rank == 0 else Silence() as journal:
            run.steps(training_set(recipe, source), journal)
            run.finish(journal)
    return run.result()


def check(recipe: Recipe, folder: RunFolder, *, resume: bool, console: Console) -> DataSource:
    """Look at everything that may be wrong before the run, then open its folder; returns the data."""
    source = open_data(recipe.data)
    training_set(recipe, source)
    if not resume:
        check_data(recipe, source)
    for note in source.notes:
        console.print(f"note: {note}", soft_wrap=True)
    folder.open(recipe, resume=resume)
    return source


def announce(fabric: Fabric, recipe: Recipe, source: DataSource, console: Console) -> None:
    """Say what is about to happen."""
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in source.splits.items())
    where = f"{fabric.world_size} x {fabric.device.type}" if fabric.world_size > 1 else str(fabric.device)
    console.print(
        f"{recipe.model.encoder} on {source.name}: {counts} images, {len(source.classes)} classes; "
        f"{recipe.train.steps} steps {step_in_words(recipe, fabric)} on {where}",
        soft_wrap=True,
    )


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Ask torch for deterministic algorithms, where they are wanted, within the block."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class Run:
    """A model on its way: what is trained, how far it has come, and where that is kept."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        folder: RunFolder,
        source: DataSource,
        model: Segmenter,
        stop: list[signal.Signals],
    ) -> None:
        self.fabric = fabric
        self.recipe = recipe
        self.folder = folder
        self.source = source
        self.stop = stop
        self.progress: dict[str, Any] = {"step": 0, "evaluated": 0, "best_miou": -1.0, "best_step": 0}
        self.scores: Scores | None = None
        state = folder.load_trainer()
        if state is not None:
            model.load_state_dict(read_model_folder(folder.last).state)
        self.model = prepare_model(model, recipe, fabric)
        self.wrapped, self.optimizer = fabric.setup(model, build_optimizer(model, recipe.train))
        self.average = averaged(model, recipe.train.ema)
        if state is not None:
            self.restore(state)
        first(fabric, self.open_records)

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what was saved beside the weights."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.progress = state["progress"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def open_records(self) -> None:
        """Write the manifest, and forget what was logged after the last save."""
        self.folder.forget_after(self.progress["step"])
        facts = {
            "data": describe_data(self.source),
            "class_weights": self.recipe.train.class_weights,
            "started_at_step": self.progress["step"],
            "processes": self.fabric.world_size,
            "device": device_name(self.fabric.device),
        }
        self.folder.write_manifest(facts)

    @property
    def judged(self) -> Segmenter:
        """The model that is evaluated and kept: the average of the weights, where there is one."""
        model: Any = self.model if self.average is None else self.average.module
        return model  # type: ignore[no-any-return]

    def steps(self, dataset: SegmentationDataset, journal: Journal | Silence) -> None:
        """Take the steps that are left, with an evaluation every so often."""
        config, start = self.recipe.train, self.progress["step"]
        rank, world = self.fabric.global_rank, self.fabric.world_size
        weights = None if config.class_weights is None else torch.tensor(config.class_weights).to(self.fabric.device)
        self.evaluate_if_due(journal)  # a run that was stopped during an evaluation owes it
        if self.tired():
            return
        batches = StepBatches(len(dataset), config, start=start, rank=rank, world=world)
        journal.begin()
        for step, batch in enumerate(iterate(build_loader(dataset, batches)), start=start):
            set_learning_rate(self.optimizer, lr := learning_rate(step, config))
            torch.manual_seed(seed_of(config.seed, step, rank))  # dropout: a function of the step
            loss = self.step(step, batch, weights)
            self.progress["step"] = done = step + 1
            log = done % config.log_every == 0 or self.due()  # what is saved was looked at
            logged = check_finite(loss.item(), step, self.folder.last) if log else None
            journal.step(done, logged, lr)
            self.evaluate_if_due(journal)
            if agree_to_stop(self.fabric, self.stop):
                self.save()
                break
            if self.tired():
                break
            journal.begin()

    def step(self, step: int, batch: tuple[Tensor, Tensor], weights: Tensor | None) -> Tensor:
        """Update the weights and their average; returns the loss."""
        try:
            batch = self.fabric.to_device(batch)
            loss = optimizer_step(self.fabric, self.wrapped, self.optimizer, batch, self.recipe, weights)
        except RuntimeError as error:
            raise out_of_memory(error, self.recipe, step) from error
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss

    def due(self) -> bool:
        """Whether the model is to be evaluated after this step."""
        step, config = self.progress["step"], self.recipe.train
        return bool(step == config.steps or step % config.eval_every == 0)

    def evaluate_if_due(self, journal: Journal | Silence) -> None:
        """Evaluate and save where the step asks for it, unless the run is to stop; keep the model if it is the best."""
        step, config = self.progress["step"], self.recipe.train
        if not self.due() or step == self.progress["evaluated"]:
            return
        alone, split = self.fabric.world_size == 1, self.recipe.data.val_split

        def watch(done: int, total: int) -> None:
            journal.evaluating(done, total)
            if self.stop and alone:  # among several, all would have to leave at the same image
                raise Stopped

        try:
            scores = score(
                self.judged,
                self.source,
                split,
                workers=config.workers,
                progress=watch,
                part=(self.fabric.global_rank, self.fabric.world_size),
            )
        except Stopped:
            return
        self.scores = scores
        journal.evaluated(step, scores, self.judged, self.source, split)
        provenance = self.judged.card.provenance | {"step": step, split: scores.summary()}
        self.model.card = self.judged.card = replace(self.model.card, provenance=provenance)
        self.progress["evaluated"] = step
        if scores.miou > self.progress["best_miou"]:
            self.progress |= {"best_miou": scores.miou, "best_step": step}
            if self.fabric.global_rank == 0:
                self.folder.save_best(self.judged)
        self.save()

    def save(self) -> None:
        """Write everything that going on from here takes."""
        if self.fabric.global_rank == 0:
            state = {
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "progress": copy.deepcopy(self.progress),
            }
            self.folder.save_last(self.model, state)
        self.fabric.barrier()

    def tired(self) -> bool:
        """Whether the best evaluation is as many evaluations ago as the recipe has patience for."""
        config, progress = self.recipe.train, self.progress
        waited = (progress["evaluated"] - progress["best_step"]) // config.eval_every
        return config.patience is not None and progress["evaluated"] == progress["step"] and waited >= config.patience

    def finish(self, journal: Journal | Silence) -> None:
        """Write the report, unless the run is to stop or was finished before; say so where it ended early."""
        if self.tired() and self.progress["step"] < self.recipe.train.steps:
            journal.note(f"no better mIoU in {self.recipe.train.patience} evaluations: stopped early")
        if self.scores is not None and not self.stop:
            journal.report(self.judged, self.source, self.recipe.data.val_split, self.scores)

    def result(self) -> TrainResult:
        """Return what the run came to."""
        finished = self.progress["evaluated"] == self.recipe.train.steps or self.tired()
        return TrainResult(
            run_dir=self.folder.path,
            step=self.progress["step"],
            best_miou=self.progress["best_miou"],
            best_step=self.progress["best_step"],
            interrupted=self.stop[0] if self.stop and not finished else None,
        )


class Stopped(Exception):  # noqa: N818  # no error
    """Leaves an evaluation that a signal interrupts."""
