"""Classification pre-training of an encoder, as PVTv2 and DeiT do it: recipe in, run folder out.

The run folder is that of a training run, but for best/: an encoder that ``train.init_from`` takes, in the authors' own
layout and with its classifier, and where it comes from.
"""

import io
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from rich.console import Console
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from segformer.checkpoints.formats import nvlabs
from segformer.checkpoints.key_table import write
from segformer.data.loading import generator_of, iterate, leave_signals_to_the_parent, seed_of
from segformer.errors import UserError
from segformer.files import write_bytes, write_folder, write_json
from segformer.models.classifier import Classifier, build_classifier
from segformer.pretraining.augmentation import Mixing, TestTransform, TrainTransform
from segformer.pretraining.imagenet import ClassificationDataset, LabelledImages, open_images
from segformer.pretraining.journal import PretrainJournal
from segformer.pretraining.recipes import PretrainRecipe, find_pretrain_recipe, read_pretrain_recipe
from segformer.training.journal import Silence
from segformer.training.optim import BETAS, averaged
from segformer.training.processes import agree_to_stop, build_fabric, first, lost_processes, stop_signals
from segformer.training.run_folder import TRAINER, RunFolder

ENCODER, PROVENANCE = "encoder.safetensors", "provenance.json"


@dataclass(frozen=True)
class PretrainResult:
    """What a run came to; ``interrupted`` is the signal that ended it early, if one did."""

    run_dir: Path
    epoch: int
    best_top1: float
    interrupted: signal.Signals | None


def pretrain(
    recipe: PretrainRecipe | str,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    console: Console | None = None,
) -> PretrainResult:
    """Train as a recipe (or the name of one, or a recipe.json) says; the run folder is ``runs/<recipe>`` unless given.

    ``devices`` and ``nodes`` are those of :func:`segformer.training.run.train`.  Ctrl-C and SIGTERM save and return
    after the current step; ``resume`` goes on from the last save, and ends with the weights that an uninterrupted run
    has.  Needs timm.  Raises UserError for what a user can mend.
    """
    recipe = find_pretrain_recipe(recipe) if isinstance(recipe, str) else recipe
    fabric = build_fabric(recipe.precision, device, devices, nodes)
    console = (console or Console()) if fabric.global_rank == 0 else Console(quiet=True)
    folder = RunFolder(Path(run_dir or Path("runs") / recipe.name))
    first(fabric, lambda: check(recipe, folder, resume=resume, world=fabric.world_size))
    images = open_images(recipe.root)
    console.print(
        f"{recipe.encoder} on {images.name}: {len(images.samples('train'))} train, {len(images.samples('val'))} val "
        f"images, {len(images.classes)} classes; {recipe.epochs} epochs in steps of {recipe.batch_size} "
        f"on {fabric.world_size} x {fabric.device.type}",
        soft_wrap=True,
    )
    with torch.random.fork_rng(), stop_signals() as stop, lost_processes(fabric):
        torch.manual_seed(recipe.seed)
        run = Run(fabric, recipe, folder, images, stop)
        watcher = PretrainJournal(folder, recipe, run.total, start=run.progress["step"], console=console)
        with watcher if fabric.global_rank == 0 else Silence() as journal:
            run.steps(journal)
    return run.result()


def check(recipe: PretrainRecipe, folder: RunFolder, *, resume: bool, world: int) -> None:
    """Look at everything that may be wrong before the run, then open its folder."""
    images = open_images(recipe.root)
    for split in ("train", "val"):
        images.samples(split)
    if recipe.batch_size % (unit := 2 * world if recipe.mixes else world):
        raise UserError(f"batch_size must be a multiple of {unit} on {world} devices, got {recipe.batch_size}")
    TrainTransform(recipe)
    Mixing(recipe, len(images.classes))
    folder.open(recipe, resume=resume, read=read_pretrain_recipe)


class Run:
    """A classifier on its way: what is trained, how far it has come, and where that is kept."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: PretrainRecipe,
        folder: RunFolder,
        images: LabelledImages,
        stop: list[signal.Signals],
    ) -> None:
        self.fabric, self.recipe, self.folder, self.images, self.stop = fabric, recipe, folder, images, stop
        self.progress: dict[str, Any] = {"step": 0, "evaluated": 0, "best_top1": -1.0}
        self.per_epoch = steps_per_epoch(len(images.samples("train")), recipe)
        self.total = recipe.epochs * self.per_epoch
        self.mixing = Mixing(recipe, len(images.classes))
        self.model = build_classifier(recipe.encoder, len(images.classes), recipe.drop_path).train()
        self.wrapped, self.optimizer = fabric.setup(self.model, build_optimizer(self.model, recipe))
        self.average = averaged(self.model, recipe.ema)
        if (state := folder.load_trainer()) is not None:
            self.restore(state)
        first(fabric, self.open_records)

    def facts(self) -> dict[str, Any]:
        """Return what a run that goes on must find as it was."""
        splits = {split: len(samples) for split, samples in self.images.splits.items()}
        return {"name": self.images.name, "images": splits, "classes": len(self.images.classes)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what was saved; raises a UserError where the data are others by now."""
        if state["data"] != self.facts():
            raise UserError(
                f"{self.folder.path}: the run began with {state['data']}, now there is {self.facts()}; "
                f"bring those images back, or start a new run"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.progress = state["progress"]

    def open_records(self) -> None:
        """Write the manifest, and forget what was logged after the last save."""
        self.folder.forget_after(self.progress["step"])
        facts = {"data": self.facts(), "timm": version("timm"), "processes": self.fabric.world_size}
        self.folder.write_manifest(facts | {"started_at_step": self.progress["step"]})

    @property
    def judged(self) -> Classifier:
        """The model that is evaluated and kept: the average of the weights, where there is one."""
        return cast("Classifier", self.model if self.average is None else self.average.module)

    def steps(self, journal: "PretrainJournal | Silence") -> None:
        """Take the steps that are left, with an evaluation every so often."""
        recipe, start = self.recipe, self.progress["step"]
        self.evaluate_if_due(journal)  # a run that was stopped during an evaluation owes it
        journal.begin()
        for step, batch in enumerate(iterate(self.loader(start)), start=start):
            set_rate(self.optimizer, lr := learning_rate(step, recipe, self.per_epoch))
            loss = self.step(step, batch)
            self.progress["step"] = done = step + 1
            logged = done % recipe.log_every == 0
            if logged or self.due or self.stop:  # nothing broken is saved
                check_finite(loss.item(), step, self.folder.last)
            journal.step(done, loss.item() if logged else None, lr)
            self.evaluate_if_due(journal)
            if agree_to_stop(self.fabric, self.stop):
                self.save()
                break

    def loader(self, start: int) -> DataLoader[Any]:
        """Return the loader of (images (b, C, size, size) normalised, labels (b,)), a batch a step."""
        rank, world, recipe = self.fabric.global_rank, self.fabric.world_size, self.recipe
        samples = self.images.samples("train")
        batches = RepeatedBatches(len(samples), recipe, steps=self.total, start=start, rank=rank, world=world)
        dataset = ClassificationDataset(samples, TrainTransform(recipe), recipe.seed)
        return build_loader(dataset, recipe, batch_sampler=batches)

    def step(self, step: int, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mix a batch and update the weights and their average; returns the loss."""
        seed = seed_of(self.recipe.seed, step, self.fabric.global_rank, 0)
        torch.manual_seed(seed)  # stochastic depth: a function of the step
        try:
            images, labels = self.fabric.to_device(batch)
            images, targets = self.mixing(images, labels, seed)
            loss = optimizer_step(self.fabric, self.wrapped, self.optimizer, images, targets, self.recipe)
        except torch.OutOfMemoryError as error:
            now = self.recipe.micro_batch_size or len(batch[0])
            raise UserError(f"out of memory; set micro_batch_size below {now}: the step stays the same") from error
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss

    @property
    def due(self) -> bool:
        """Whether it is time for an evaluation."""
        step = self.progress["step"]
        at_epoch = step == self.total or step % (self.recipe.eval_every * self.per_epoch) == 0
        return at_epoch and bool(step != self.progress["evaluated"])

    def evaluate_if_due(self, journal: "PretrainJournal | Silence") -> None:
        """Evaluate and save where the epoch asks for it, unless the run is to stop; keep the best encoder."""
        if not self.due:
            return
        step, progress = self.progress["step"], self.progress

        def watch(done: int, of: int) -> None:
            journal.evaluating(done, of)
            if self.stop and self.fabric.world_size == 1:  # among several, all would have to leave at the same image
                raise Stopped

        try:
            scores = evaluate(self.fabric, self.judged, self.images.samples("val"), self.recipe, watch)
        except Stopped:
            return
        finally:
            self.model.train()
        journal.evaluated(step, step // self.per_epoch, scores)
        progress["evaluated"] = step
        if scores["top1"] > progress["best_top1"]:
            progress["best_top1"] = scores["top1"]
            if self.fabric.global_rank == 0:
                self.save_best(scores)
        self.save()
        journal.begin()

    def save_best(self, scores: dict[str, float]) -> None:
        """Write the encoder, its classifier, and where they come from."""
        facts = {
            "source": "pre-trained with segformer",
            "recipe": self.recipe.name,
            "data": Path(self.images.name).name,
            "epoch": self.progress["step"] // self.per_epoch,
            "val": scores,
            "classes": self.images.classes,
        }

        def fill(partial: Path) -> None:
            write_bytes(partial / ENCODER, serialize(encoder_state(self.judged), {"format": "pt"}))
            write_json(partial / PROVENANCE, facts)

        write_folder(self.folder.best, fill)

    def save(self) -> None:
        """Write everything that going on from here takes, all or nothing."""
        if self.fabric.global_rank == 0:
            buffer = io.BytesIO()
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "progress": self.progress,
                "data": self.facts(),
            }
            torch.save(state, buffer)
            write_folder(self.folder.last, lambda partial: write_bytes(partial / TRAINER, buffer.getvalue()))
        self.fabric.barrier()

    def result(self) -> PretrainResult:
        """Return what the run came to."""
        return PretrainResult(
            run_dir=self.folder.path,
            epoch=self.progress["step"] // self.per_epoch,
            best_top1=self.progress["best_top1"],
            interrupted=self.stop[0] if self.stop and self.progress["evaluated"] < self.total else None,
        )


class Stopped(Exception):  # noqa: N818  # no error
    """Leaves an evaluation that a signal interrupts."""


def encoder_state(model: Classifier) -> dict[str, Tensor]:
    """Return the tensors of the authors' pre-trained encoders, by their names there."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return write(nvlabs.ENCODER, state)


def optimizer_step(
    fabric: Fabric, model: Any, optimizer: Any, images: Tensor, targets: Tensor, recipe: PretrainRecipe
) -> Tensor:
    """Accumulate the gradient over micro-batches and update; returns the loss, averaged over the global batch."""
    size = recipe.micro_batch_size or len(images)
    total = torch.zeros((), device=fabric.device)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        with fabric.no_backward_sync(model, enabled=start + size < len(images)):
            loss = F.cross_entropy(model(images[part]), targets[part], reduction="sum") / len(images)
            fabric.backward(loss)
        total += loss.detach()
    if recipe.clip_grad is not None:
        fabric.clip_gradients(model, optimizer, max_norm=recipe.clip_grad)
    optimizer.step()
    optimizer.zero_grad()
    return cast("Tensor", fabric.all_reduce(total, reduce_op="mean"))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups, as timm and PVT have them: what has one dimension, that is norms and biases, is not decayed."""
    parameters = list(model.parameters())
    return [
        {"name": "weights", "params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"name": "norms and biases", "params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, recipe: PretrainRecipe) -> torch.optim.Optimizer:
    """Return AdamW over the model's parameter groups."""
    return torch.optim.AdamW(parameter_groups(model, recipe.weight_decay), lr=recipe.lr, betas=BETAS, fused=True)


def steps_per_epoch(num_samples: int, recipe: PretrainRecipe) -> int:
    """Full batches in as many samples as there are images."""
    return max(1, num_samples // recipe.batch_size)


def learning_rate(step: int, recipe: PretrainRecipe, per_epoch: int) -> float:
    """Learning rate at a step counted from 0: linear warm-up to the peak, then cosine decay.

    The cosine counts from step 0 as well, as in timm's schedule, which PVTv2 and DeiT take (by epochs).
    """
    warmup, total = recipe.warmup_epochs * per_epoch, recipe.epochs * per_epoch
    if step < warmup:
        return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * step / warmup
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * step / total)) / 2


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def check_finite(loss: float, step: int, last: Path) -> None:
    """Raise a UserError that says what to do where the loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss became {loss} at step {step}; lower base_lr, set clip_grad, or use precision fp32"
            + (f"; {last} holds the last save before" if last.exists() else "")
        )


class RepeatedBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (turn, index) for the steps ``start`` ... ``steps`` - 1: an image in its so many-eth augmentation.

    The images of an endless sequence of shuffles follow one another, each ``repeats`` times in a row; of each global
    batch, the process ``rank`` of ``world`` takes every ``world``-th, so that an image's repeats go to several.
    """

    def __init__(
        self, num_samples: int, recipe: PretrainRecipe, *, steps: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.num_samples, self.recipe = num_samples, recipe
        self.steps = range(start, steps)
        self.rank, self.world = rank, world
        self._shuffle: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.recipe.batch_size
        for step in self.steps:
            yield [self.item(p) for p in range(step * size + self.rank, (step + 1) * size, self.world)]

    def item(self, position: int) -> tuple[int, int]:
        """(turn, index) at a position of the endless sequence."""
        place, repeat = divmod(position, self.recipe.repeats)
        shuffle, offset = divmod(place, self.num_samples)
        return shuffle * self.recipe.repeats + repeat, self._order(shuffle)[offset]

    def _order(self, shuffle: int) -> list[int]:
        if self._shuffle[0] != shuffle:
            generator = generator_of(self.recipe.seed, shuffle)
            self._shuffle = shuffle, torch.randperm(self.num_samples, generator=generator).tolist()
        return self._shuffle[1]


def build_loader(dataset: ClassificationDataset, recipe: PretrainRecipe, **which: Any) -> DataLoader[Any]:
    """Return a loader of what a sampler asks for."""
    return DataLoader(
        dataset,
        num_workers=recipe.workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_the_parent,
        prefetch_factor=4 if recipe.workers else None,
        **which,
    )


@torch.inference_mode()
def evaluate(
    fabric: Fabric,
    model: Classifier,
    samples: Sequence[tuple[Path, int]],
    recipe: PretrainRecipe,
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Return {"top1", "top5"} over all samples; each process takes its own, and all return the same."""
    own = [(0, index) for index in range(fabric.global_rank, len(samples), fabric.world_size)]
    dataset = ClassificationDataset(samples, TestTransform(recipe))
    size = recipe.micro_batch_size or recipe.batch_size // fabric.world_size
    loader = build_loader(dataset, recipe, sampler=own, batch_size=size)
    hits, done = torch.zeros(2, dtype=torch.int64, device=fabric.device), 0
    model.eval()
    for batch in iterate(loader):
        images, labels = fabric.to_device(batch)
        hits += top_hits(model(images), labels)
        progress(done := done + len(labels), len(own))
    top1, top5 = cast("Tensor", fabric.all_reduce(hits, reduce_op="sum")).tolist()
    return {"top1": top1 / len(samples), "top5": top5 / len(samples)}


def top_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """How many labels have the highest logit, and one of the five highest.  (B, K), (B,) -> (2,)"""
    found = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
    return torch.stack([found[:, 0].sum(), found.sum()])
