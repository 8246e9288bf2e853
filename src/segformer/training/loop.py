"""One training run: recipe in, run folder out."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from segformer.config import IGNORE_INDEX, ModelCard, Recipe
from segformer.data.catalog import open_data
from segformer.data.dataset import DataSource, SegmentationDataset, seed_of
from segformer.data.transforms import TrainTransform
from segformer.evaluation.evaluate import evaluate
from segformer.models.segmenter import Segmenter, build_from_card
from segformer.ops.upsample_cross_entropy import denominator, upsample_cross_entropy
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
    recipe: Recipe,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
) -> TrainResult:
    """Train as the recipe says; the run folder is ``runs/<recipe>`` unless given.

    Ctrl-C and SIGTERM save and return after the current step; ``resume`` goes on from the last save, and ends with
    the weights that an uninterrupted run has.  Raises ValueError, FileNotFoundError or FileExistsError for what a
    user can mend.
    """
    console = console or Console()
    source = open_data(recipe.data)
    dataset = training_set(recipe, source)
    for note in source.notes:
        console.print(f"note: {note}", soft_wrap=True)
    folder = RunFolder(Path(run_dir or Path("runs") / recipe.name), recipe, resume=resume)
    fabric = Fabric(accelerator=device, devices=1, precision=PRECISIONS[recipe.train.precision])
    with torch.random.fork_rng():
        torch.manual_seed(recipe.train.seed)
        model = build_from_card(describe(recipe, source))
        return run(fabric, recipe, folder, source, dataset, model, console)


def run(
    fabric: Fabric,
    recipe: Recipe,
    folder: RunFolder,
    source: DataSource,
    dataset: SegmentationDataset,
    model: Segmenter,
    console: Console,
) -> TrainResult:
    """Take the steps that are left, with an evaluation every so often."""
    config = recipe.train
    optimizer = build_optimizer(model, config)
    wrapped, optimizer = fabric.setup(model, optimizer)
    progress: dict[str, Any] = {"step": 0, "best_miou": -1.0, "best_step": 0}
    if (state := folder.load_trainer()) is not None:
        progress = restore(state, folder, model, optimizer)
    folder.forget_after(progress["step"])
    folder.write_manifest({"data": describe_data(source), "started_at_step": progress["step"], "seed": config.seed})
    batches = StepBatches(
        len(dataset), config, start=progress["step"], rank=fabric.global_rank, world=fabric.world_size
    )
    weights = None if config.class_weights is None else torch.tensor(config.class_weights, device=fabric.device)
    model.train()
    with stop_signals() as stop, Journal(folder, config, start=progress["step"], console=console) as journal:
        journal.begin()
        for step, (images, masks) in enumerate(build_loader(dataset, batches), start=progress["step"]):
            set_learning_rate(optimizer, lr := learning_rate(step, config))
            torch.manual_seed(seed_of(config.seed, step, fabric.global_rank))  # dropout: a function of the step
            loss = optimizer_step(fabric, wrapped, optimizer, fabric.to_device((images, masks)), recipe, weights)
            progress["step"] = done = step + 1
            logged = check_finite(loss.item(), step, folder) if done % config.log_every == 0 else None
            journal.step(done, logged, lr)
            is_last = done == config.steps
            if is_last or (done % config.eval_every == 0 and not stop):
                evaluate_and_keep(recipe, folder, source, model, journal, progress)
            if is_last or stop or done % config.eval_every == 0:
                folder.save_last(model, optimizer, progress)
            if stop:
                break
            journal.begin()
    interrupted = stop[0] if stop and progress["step"] < config.steps else None
    return TrainResult(folder.path, progress["step"], progress["best_miou"], progress["best_step"], interrupted)


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


def evaluate_and_keep(
    recipe: Recipe, folder: RunFolder, source: DataSource, model: Segmenter, journal: Journal, progress: dict[str, Any]
) -> None:
    """Evaluate; keep the model where it is the best so far."""
    scores = evaluate(model, source, recipe.data.val_split, workers=recipe.train.workers, progress=journal.evaluating)
    journal.evaluated(progress["step"], scores)
    model.card = model.card.with_(
        provenance=model.card.provenance | {"step": progress["step"], recipe.data.val_split: scores.summary()}
    )
    if scores.miou > progress["best_miou"]:
        progress |= {"best_miou": scores.miou, "best_step": progress["step"]}
        folder.save_best(model)


def training_set(recipe: Recipe, source: DataSource) -> SegmentationDataset:
    """Return the augmented training split; raises a ValueError where a split is empty or weights do not fit."""
    for split in (recipe.data.train_split, recipe.data.val_split):
        if not source.samples(split):
            raise ValueError(f"{source.name}: no images in the split '{split}'")
    weights = recipe.train.class_weights
    if weights is not None and len(weights) != len(source.classes):
        raise ValueError(f"train.class_weights must have {len(source.classes)} values, got {len(weights)}")
    transform = TrainTransform(recipe.data, recipe.preprocessing)
    return SegmentationDataset(source.samples(recipe.data.train_split), source.table, transform, recipe.train.seed)


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


def restore(
    state: dict[str, Any], folder: RunFolder, model: Segmenter, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put model and optimizer back where they were; returns the progress."""
    from segformer.checkpoint import WEIGHTS, check_state, read_state

    weights = read_state(folder.last / WEIGHTS)
    check_state(weights, model.state_dict(), folder.last / WEIGHTS)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state["optimizer"])
    progress: dict[str, Any] = state["progress"]
    return progress


def check_finite(loss: float, step: int, folder: RunFolder) -> float:
    """Return the loss; raises a ValueError that says what to do where it is NaN or infinite."""
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss became {loss} at step {step}; lower train.lr or use train.precision fp32. "
            f"{folder.last} holds the last save before"
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
