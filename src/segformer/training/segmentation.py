"""Training of a segmentation model by a recipe; writes a run folder."""

import signal
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader

from segformer.arrays import Array
from segformer.checkpoints.model_folder import read_model_folder, save, write_model
from segformer.config import Recipe, TrainConfig
from segformer.data.dataset import DataSource
from segformer.data.loading import SegmentationDataset, seed_of
from segformer.data.sources.catalog import open_data
from segformer.data.transforms import stack
from segformer.errors import UserError
from segformer.evaluation.evaluate import score
from segformer.models.build import check_card
from segformer.models.segmenter import Segmenter
from segformer.ops.losses import resolve_loss
from segformer.recipes import find_recipe, read_recipe
from segformer.report.predictions import picture_grid, prediction_rows
from segformer.resumable import OnProgress
from segformer.training.loader import StepBatches, build_loader
from segformer.training.optim import build_optimizer, polynomial_rate, segmentation_groups
from segformer.training.preparation import (
    build_initialized,
    check_data,
    class_weights_of,
    data_facts,
    prepare_model,
    step_in_words,
    training_card,
    training_set,
)
from segformer.training.processes import build_fabric
from segformer.training.reporter import LogReporter, RunReporter
from segformer.training.run import run_task
from segformer.training.run_folder import RunFolder
from segformer.training.segmentation_loss import SegmentationLoss, TrainingModel
from segformer.training.segmentation_page import write_segmentation_page
from segformer.training.task import Batch, BatchLoss, Note, Plan, Task, Validation


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a run; ``interrupted`` is the signal that stopped the run early, or None."""

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
    reporter: RunReporter | None = None,
) -> TrainResult:
    """Train by a recipe and write the run to the folder ``run_dir``, or else to runs/NAME with the name of the recipe.

    ``recipe`` is a Recipe, the name of one, or the path of a recipe.json.  ``devices`` is the number of devices on each
    of ``nodes`` machines; torchrun and SLURM override both.  After Ctrl-C or SIGTERM, the current step is finished, the
    state is saved, and the function returns.  ``resume`` continues from the last save and ends with the same weights as
    an uninterrupted run.  Without a ``reporter``, progress is written to the log.  Raises a UserError for anything that
    a user can correct.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    fabric = build_fabric(recipe.train.precision, device, devices, nodes)
    folder = RunFolder(Path(run_dir or Path("runs") / recipe.name))
    outcome = run_task(
        lambda: SegmentationTask(recipe), fabric, folder, resume=resume, reporter=reporter or LogReporter()
    )
    return TrainResult(outcome.run_dir, outcome.step, outcome.best, outcome.best_step, outcome.interrupted)


class SegmentationTask(Task[Segmenter]):
    """Training of a segmentation model; without a ``source``, the data that the recipe names is opened."""

    recipe: Recipe
    metric = "mIoU"

    def __init__(self, recipe: Recipe, source: DataSource | None = None) -> None:
        self.recipe = recipe
        self.source = open_data(recipe.data) if source is None else source
        self.plan = segmentation_plan(recipe.train)
        self.notes = self.source.notes
        self.split = recipe.data.val_split
        self.criterion: SegmentationLoss | None = None

    @cached_property
    def dataset(self) -> SegmentationDataset:
        """The training split with augmentation."""
        return training_set(self.recipe, self.source)

    @cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """Weight of each class in the loss; None: all the same."""
        return class_weights_of(self.recipe, self.source)

    def check(self, world_size: int, *, resume: bool) -> None:
        """Raise a UserError for anything that would fail later; the files of a resumed run are not checked again."""
        config = self.recipe.train
        if config.batch_size % world_size:
            raise UserError(
                f"train.batch_size must be a multiple of the number of devices ({world_size}), "
                f"got {config.batch_size}; choose another batch size"
            )
        resolve_loss(config.loss, config.loss_options)
        check_card(training_card(self.recipe, self.source))
        assert self.dataset is not None  # opening it checks the splits and the class weights
        if not resume:
            check_data(self.recipe, self.source)

    def read_recipe(self, path: Path) -> Recipe:
        """Return the recipe that a recipe.json contains."""
        return read_recipe(path)

    def announcement(self, fabric: Fabric) -> str:
        """Return one line that names the encoder, the data, the number of steps and the devices."""
        source = self.source
        counts = ", ".join(f"{len(samples)} {split}" for split, samples in source.splits.items())
        where = f"{fabric.world_size} x {fabric.device.type}" if fabric.world_size > 1 else str(fabric.device)
        return (
            f"{self.recipe.model.encoder} on {source.name}: {counts} images, {len(source.classes)} classes; "
            f"{self.plan.steps} steps {step_in_words(self.recipe, fabric)} on {where}"
        )

    def build(self, last: Path, note: Note) -> Segmenter:
        """Return the initial model; if ``last`` exists, return a model of the architecture saved there."""
        return build_initialized(self.recipe, self.source, last, note)

    def restore(self, model: Segmenter, state: dict[str, Any], last: Path) -> None:
        """Load the weights of ``last``, which is a model folder."""
        model.load_state_dict(read_model_folder(last).state)

    def prepare(self, model: Segmenter, fabric: Fabric) -> nn.Module:
        """Freeze, checkpoint and compile as the recipe says; the returned module also computes the auxiliary logits."""
        module = TrainingModel(prepare_model(model, self.recipe, fabric))
        if self.recipe.train.compile:
            module.compile()
        weights = None if self.class_weights is None else torch.tensor(self.class_weights).to(fabric.device)
        self.criterion = SegmentationLoss(self.recipe, weights, model.decoder.auxiliary_weights)
        return module

    def build_optimizer(self, model: Segmenter) -> torch.optim.Optimizer:
        """Return AdamW with groups for the encoder, the norm layers of the encoder, and the decoder."""
        return build_optimizer(segmentation_groups(model, self.recipe.train), self.recipe.train.lr)

    def facts(self) -> dict[str, Any]:
        """Return what manifest.json records about the data, and the class weights."""
        return {"data": data_facts(self.source), "class_weights": self.class_weights}

    def batches(self, start: int, *, rank: int, world_size: int) -> DataLoader[Batch]:
        """Return a loader of (normalized images, masks).  (b, C, H, W) float, (b, H, W) uint8"""
        batches = StepBatches.from_plan(len(self.dataset), self.plan, start=start, rank=rank, world_size=world_size)
        return build_loader(self.dataset, workers=self.recipe.train.workers, batch_sampler=batches, collate_fn=stack)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the encoder at a step."""
        return polynomial_rate(step, self.recipe.train)

    def seed_of_step(self, step: int, rank: int) -> int:
        """Return the seed of dropout and stochastic depth in a step on process ``rank``."""
        return seed_of(self.plan.seed, step, rank)

    def loss(self, batch: Batch, fabric: Fabric) -> BatchLoss:
        """Return the loss function of a micro-batch; the sum over all micro-batches is the loss of the batch."""
        criterion = self.criterion
        assert criterion is not None  # set by prepare
        size = len(batch[0])
        # Losses are divided by the mean count of the devices, and gradients are averaged over the devices.  Together,
        # this gives the mean over the global batch.
        count: Any = fabric.all_reduce(criterion.count(batch[1]), reduce_op="mean")
        return lambda outputs, _, masks: criterion(outputs, masks, count=count, share=len(masks) / size)

    @property
    def memory_advice(self) -> str:
        """Text that names the settings that save memory and are not used yet."""
        config = self.recipe.train
        now = config.micro_batch_size or config.batch_size
        hints = [f"set train.micro_batch_size below {now} (the step stays the same)"] if now > 1 else []
        hints += [] if config.checkpointing else ["set train.checkpointing"]
        hints += ["set train.precision bf16"] if config.precision == "fp32" else []
        return ", or ".join([*hints, "lower data.crop"])

    @property
    def divergence_advice(self) -> str:
        """Text that advises a lower learning rate or, if the precision is reduced, fp32."""
        reduced = self.recipe.train.precision != "fp32"
        return "lower train.lr" + (", or set train.precision fp32" if reduced else "")

    def evaluate(self, model: Segmenter, fabric: Fabric, progress: OnProgress) -> Validation:
        """Return mIoU, mAcc and aAcc under the model's own test protocol; ``details`` are the ``Scores``."""
        part = (fabric.global_rank, fabric.world_size)
        workers = self.recipe.train.workers
        scores = score(model, self.source, self.split, workers=workers, progress=progress, part=part)
        return Validation(scores.summary(), scores)

    def pictures(self, model: Segmenter) -> Array:
        """Return a picture with a grid of images, labels and predictions.  (H, W, 3) uint8"""
        return picture_grid(prediction_rows(model, self.source, self.split))

    def stamp(self, model: Segmenter, step: int, evaluation: Validation) -> None:
        """Record the step and the scores in the provenance of the model's card."""
        provenance = model.card.provenance | {"step": step, self.split: dict(evaluation.figures)}
        model.card = replace(model.card, provenance=provenance)

    def write_best(self, model: Segmenter, folder: Path, step: int, evaluation: Validation) -> None:
        """Save the model as a model folder."""
        save(model, folder)

    def state(self, model: Segmenter) -> dict[str, Any]:
        """Return an empty dict, because the weights are in files beside trainer.pt."""
        return {}

    def write_last(self, model: Segmenter, folder: Path) -> None:
        """Write the files of a model folder beside trainer.pt."""
        write_model(model, folder)

    def write_page(self, model: Segmenter, run_dir: Path, evaluation: Validation) -> Path:
        """Write report.html with curves, classes, predictions and confusions; returns its path."""
        return write_segmentation_page(run_dir, model, self.source, self.split, evaluation.details)


def segmentation_plan(config: TrainConfig) -> Plan:
    """Return the settings of a recipe that the training loop reads."""
    return Plan(
        steps=config.steps,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        eval_every=config.eval_every,
        log_every=config.log_every,
        seed=config.seed,
        precision=config.precision,
        ema=config.ema,
        patience=config.patience,
        deterministic=config.deterministic,
        wandb=config.wandb,
    )
