"""One training run: recipe in, run folder out."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from segformer.checkpoint import CONFIG, initialize, read_card, read_own, read_weights
from segformer.config import IGNORE_INDEX, ModelCard, Recipe
from segformer.data.cache import cached
from segformer.data.catalog import open_data
from segformer.data.dataset import DataSource, SegmentationDataset, iterate, seed_of
from segformer.data.doctor import inspect
from segformer.data.images import Decoding
from segformer.data.transforms import TrainTransform
from segformer.evaluation.evaluate import evaluate
from segformer.models.segmenter import Segmenter, build_from_card
from segformer.ops.upsample_cross_entropy import denominator, upsample_cross_entropy
from segformer.recipes import find_recipe
from segformer.training.journal import Journal
from segformer.training.loader import StepBatches, build_loader
from segformer.training.optim import build_optimizer, learning_rate, set_learning_rate
from segformer.training.run_folder import RunFolder

PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


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
    console: Console | None = None,
) -> TrainResult:
    """Train as a recipe (or the name of one, or a recipe.json) says; the run folder is ``runs/<recipe>`` unless given.

    Ctrl-C and SIGTERM save and return after the current step; ``resume`` goes on from the last save, and ends with
    the weights that an uninterrupted run has.  Raises ValueError, FileNotFoundError or FileExistsError for what a
    user can mend.
    """
    console = console or Console()
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    kind, _, number = device.partition(":")
    fabric = Fabric(
        accelerator=kind, devices=[int(number)] if number else 1, precision=PRECISIONS[recipe.train.precision]
    )
    source = open_data(recipe.data)
    dataset = training_set(recipe, source)
    if not resume:
        check_data(recipe, source)
    for note in source.notes:
        console.print(f"note: {note}", soft_wrap=True)
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in source.splits.items())
    console.print(
        f"{recipe.model.encoder} on {source.name}: {counts} images, {len(source.classes)} classes; "
        f"{recipe.train.steps} steps of {recipe.train.batch_size} on {fabric.device}",
        soft_wrap=True,
    )
    folder = RunFolder(Path(run_dir or Path("runs") / recipe.name), recipe, resume=resume)
    with torch.random.fork_rng(), stop_signals() as stop:
        torch.manual_seed(recipe.train.seed)
        run = Run(fabric, recipe, folder, source, build_initialized(recipe, source, folder, console), stop)
        with Journal(folder, recipe.train, start=run.progress["step"], console=console) as journal:
            run.steps(dataset, journal)
    return run.result()


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
        self.model = model.train()
        self.stop = stop
        self.wrapped, self.optimizer = fabric.setup(model, build_optimizer(model, recipe.train))
        self.progress: dict[str, Any] = {"step": 0, "evaluated": 0, "best_miou": -1.0, "best_step": 0}
        if (state := folder.load_trainer()) is not None:
            model.load_state_dict(read_own(folder.last).state)
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = state["progress"]
        folder.forget_after(self.progress["step"])
        folder.write_manifest({"data": describe_data(source), "started_at_step": self.progress["step"]})

    def steps(self, dataset: SegmentationDataset, journal: Journal) -> None:
        """Take the steps that are left, with an evaluation every so often."""
        config, start = self.recipe.train, self.progress["step"]
        rank, world = self.fabric.global_rank, self.fabric.world_size
        weights = None if config.class_weights is None else torch.tensor(config.class_weights).to(self.fabric.device)
        self.evaluate_if_due(journal)  # a run that was stopped during an evaluation owes it
        batches = StepBatches(len(dataset), config, start=start, rank=rank, world=world)
        journal.begin()
        for step, batch in enumerate(iterate(build_loader(dataset, batches)), start=start):
            set_learning_rate(self.optimizer, lr := learning_rate(step, config))
            torch.manual_seed(seed_of(config.seed, step, rank))  # dropout: a function of the step
            batch = self.fabric.to_device(batch)
            loss = optimizer_step(self.fabric, self.wrapped, self.optimizer, batch, self.recipe, weights)
            self.progress["step"] = done = step + 1
            logged = check_finite(loss.item(), step, self.folder) if done % config.log_every == 0 else None
            journal.step(done, logged, lr)
            self.evaluate_if_due(journal)
            if self.stop:
                self.folder.save_last(self.model, self.optimizer, self.progress)
                break
            journal.begin()

    def evaluate_if_due(self, journal: Journal) -> None:
        """Evaluate and save where the step asks for it, unless the run is to stop; keep the model if it is the best."""
        step, config = self.progress["step"], self.recipe.train
        due = step == config.steps or step % config.eval_every == 0
        if not due or step == self.progress["evaluated"]:
            return
        split = self.recipe.data.val_split

        def watch(done: int, total: int) -> None:
            journal.evaluating(done, total)
            if self.stop:
                raise Stopped

        try:
            scores = evaluate(self.model, self.source, split, workers=config.workers, progress=watch)
        except Stopped:
            return
        journal.evaluated(step, scores)
        provenance = self.model.card.provenance | {"step": step, split: scores.summary()}
        self.model.card = replace(self.model.card, provenance=provenance)
        self.progress["evaluated"] = step
        if scores.miou > self.progress["best_miou"]:
            self.progress |= {"best_miou": scores.miou, "best_step": step}
            self.folder.save_best(self.model)
        self.folder.save_last(self.model, self.optimizer, self.progress)

    def result(self) -> TrainResult:
        """Return what the run came to."""
        finished = self.progress["evaluated"] == self.recipe.train.steps
        return TrainResult(
            run_dir=self.folder.path,
            step=self.progress["step"],
            best_miou=self.progress["best_miou"],
            best_step=self.progress["best_step"],
            interrupted=self.stop[0] if self.stop and not finished else None,
        )


class Stopped(Exception):  # noqa: N818  # no error
    """Leaves an evaluation that a signal interrupts."""


def optimizer_step(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    batch: tuple[Tensor, Tensor],
    recipe: Recipe,
    class_weights: Tensor | None,
) -> Tensor:
    """Accumulate the gradient over micro-batches and update; returns the loss, averaged over the global batch."""
    images, masks = batch
    config, align_corners = recipe.train, recipe.model.align_corners
    size = config.micro_batch_size or len(images)
    # Mean over devices of the local counts: together with the mean of the gradients, a mean over the global batch.
    local = denominator(masks, IGNORE_INDEX, class_weights, config.loss_average)
    count = cast("Tensor", fabric.all_reduce(local, reduce_op="mean"))
    total = torch.zeros((), device=fabric.device)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        with fabric.no_backward_sync(model, enabled=start + size < len(images)):
            logits = model(images[part])
            loss = upsample_cross_entropy(
                logits, masks[part], IGNORE_INDEX, class_weights, average="sum", align_corners=align_corners
            )
            loss = loss / count.to(loss)
            fabric.backward(loss)
        total += loss.detach()
    optimizer.step()
    optimizer.zero_grad()
    return cast("Tensor", fabric.all_reduce(total, reduce_op="mean"))


def training_set(recipe: Recipe, source: DataSource) -> SegmentationDataset:
    """Return the augmented training split; raises a ValueError where a split is empty or weights do not fit."""
    for split in (recipe.data.train_split, recipe.data.val_split):
        if not source.samples(split):
            raise ValueError(
                f"{source.name}: no images in the split '{split}'; it takes some to train on and some to evaluate on"
            )
    weights = recipe.train.class_weights
    if weights is not None and len(weights) != len(source.classes):
        raise ValueError(f"train.class_weights must have {len(source.classes)} values, got {len(weights)}")
    data = recipe.data
    samples = source.samples(data.train_split)
    return SegmentationDataset(
        cached(samples, data.cache) if data.cache else samples,
        source.table,
        TrainTransform(data, recipe.preprocessing),
        recipe.train.seed,
        training_decoding(recipe),
    )


def check_data(recipe: Recipe, source: DataSource) -> None:
    """Raise a ValueError for the first fault that the doctor finds without decoding a file."""
    used = {recipe.data.train_split, recipe.data.val_split}
    splits = {name: samples for name, samples in source.splits.items() if name in used}
    errors = inspect(replace(source, splits=splits), cheap=True).errors
    if errors:
        first, also = errors[0], f"; and {len(errors) - 1} more faults" if len(errors) > 1 else ""
        where = f"{first.files[0]}: " if first.files else ""
        raise ValueError(f"{where}{first.problem}; {first.fix}{also}; see segformer inspect {source.name}")


def training_decoding(recipe: Recipe) -> Decoding:
    """Return how training images are decoded: where the recipe allows it, no larger than its largest resize needs."""
    decoding, data = Decoding.of(recipe.model, recipe.preprocessing), recipe.data
    largest = (math.ceil(data.resize[0] * data.ratio[1]), math.ceil(data.resize[1] * data.ratio[1]))
    return replace(decoding, enough=largest) if data.reduced_decode else decoding


def build_initialized(recipe: Recipe, source: DataSource, folder: RunFolder, console: Console) -> Segmenter:
    """Return the model to train: that of a run that goes on, one like ``train.init_from``, or a random one.

    LayerNorm's eps is a property of the weights: it is taken over with them.
    """
    card = describe(recipe, source)
    if folder.last.exists():
        return build_from_card(read_card(folder.last / CONFIG))
    if recipe.train.init_from is None:
        return build_from_card(card)
    weights = read_weights(recipe.train.init_from)
    config = replace(card.model, norm_eps=weights.config.norm_eps, embed_norm_eps=weights.config.embed_norm_eps)
    provenance = card.provenance | {"init_from": recipe.train.init_from}
    model = build_from_card(replace(card, model=config, provenance=provenance))
    for note in initialize(model, weights):
        console.print(f"note: {recipe.train.init_from}: {note}", soft_wrap=True)
    return model


def describe(recipe: Recipe, source: DataSource) -> ModelCard:
    """Return the card of the model that a recipe trains on these data."""
    return ModelCard(
        model=recipe.model,
        preprocessing=recipe.preprocessing,
        eval=recipe.eval,
        classes=source.classes,
        palette=source.palette,
        provenance={"source": "trained with segformer", "recipe": recipe.name, "data": Path(source.name).name},
        licence="unknown",
    )


def describe_data(source: DataSource) -> dict[str, Any]:
    """Return the part of the manifest that says what was trained on."""
    return {
        "name": source.name,
        "classes": list(source.classes),
        "images": {split: len(samples) for split, samples in source.splits.items()},
    }


def check_finite(loss: float, step: int, folder: RunFolder) -> float:
    """Return the loss; raises a ValueError that says what to do where it is NaN or infinite."""
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss became {loss} at step {step}; lower train.lr, or use train.precision fp32 if it is another"
            + (f"; {folder.last} holds the last save before" if folder.last.exists() else "")
        )
    return loss


@contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Collect Ctrl-C and SIGTERM instead of dying of them; a second Ctrl-C stops at once."""
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
