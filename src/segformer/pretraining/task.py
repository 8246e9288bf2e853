"""Pre-training of an encoder as a classifier, as in PVTv2 and DeiT; writes a run folder.

The folder ``best`` in the run folder contains the encoder with its classifier, for use as ``train.init_from``.  The
tensors are named as in the authors' files.  A second file in ``best`` records the origin of the weights.
"""

import hashlib
import signal
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F
from lightning_fabric import Fabric
from safetensors.torch import save as serialize
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from segformer.checkpoints.formats import nvlabs
from segformer.checkpoints.key_table import write
from segformer.data.loading import seed_of
from segformer.errors import UserError
from segformer.files import write_bytes, write_folder, write_json
from segformer.models.classifier import Classifier, build_classifier
from segformer.models.encoders import ENCODERS
from segformer.pretraining.accuracy import measure_accuracy
from segformer.pretraining.augmentation import Mixing, RandomAugmentation
from segformer.pretraining.imagenet import ClassificationDataset, LabeledImages, open_images
from segformer.pretraining.page import write_pretraining_page
from segformer.pretraining.recipes import PretrainRecipe, find_pretrain_recipe, read_pretrain_recipe
from segformer.resumable import OnProgress
from segformer.training.loader import StepBatches, build_loader
from segformer.training.optim import build_optimizer, classification_groups, cosine_rate
from segformer.training.processes import build_fabric
from segformer.training.reporter import LogReporter, RunReporter
from segformer.training.run import run_task
from segformer.training.run_folder import RunFolder
from segformer.training.task import Batch, BatchLoss, Note, Plan, Task, Validation
from segformer.validation import check_choice

ENCODER = "encoder.safetensors"
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class PretrainResult:
    """Outcome of a run; ``interrupted`` is the signal that stopped the run early, or None."""

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
    reporter: RunReporter | None = None,
) -> PretrainResult:
    """Run a pre-training recipe (object, name or recipe.json); the run folder is ``run_dir`` or else ``runs/<recipe>``.

    The other arguments, the reaction to signals and the errors are the same as in ``train``.  Needs timm.
    """
    recipe = find_pretrain_recipe(recipe) if isinstance(recipe, str) else recipe
    fabric = build_fabric(recipe.precision, device, devices, nodes)
    folder = RunFolder(Path(run_dir or Path("runs") / recipe.name))
    tasks: list[ImageNetTask] = []

    def open_task() -> ImageNetTask:
        tasks.append(ImageNetTask(recipe))
        return tasks[-1]

    outcome = run_task(open_task, fabric, folder, resume=resume, reporter=reporter or LogReporter())
    _, epoch = tasks[-1].counter(outcome.step)
    return PretrainResult(outcome.run_dir, epoch, outcome.best, outcome.interrupted)


class ImageNetTask(Task[Classifier]):
    """Training of a classifier by a recipe, on the images in the recipe's ``root``."""

    recipe: PretrainRecipe
    metric = "top1"
    labels = MappingProxyType({"top1": "top-1", "top5": "top-5"})

    def __init__(self, recipe: PretrainRecipe) -> None:
        self.recipe = recipe
        self.images = open_images(recipe.root)
        self.steps_per_epoch = count_steps(len(self.images.samples("train")), recipe.batch_size)
        self.plan = pretraining_plan(recipe, self.steps_per_epoch)
        self.mixing = Mixing(recipe, len(self.images.classes))

    def check(self, world_size: int, *, resume: bool) -> None:
        """Raise a UserError for anything that would make this run fail on ``world_size`` devices."""
        recipe = self.recipe
        check_choice("encoder", recipe.encoder, ENCODERS)
        self.images.samples("val")
        unit = 2 * world_size if recipe.mixes else world_size
        if recipe.batch_size % unit:
            raise UserError(
                f"batch_size must be a multiple of {unit} on {world_size} devices, got {recipe.batch_size}; "
                f"use {-(-recipe.batch_size // unit) * unit}"
            )
        RandomAugmentation(recipe)

    def read_recipe(self, path: Path) -> PretrainRecipe:
        """Return the pre-training recipe in a recipe.json."""
        return read_pretrain_recipe(path)

    def announcement(self, fabric: Fabric) -> str:
        """Return one line that describes encoder, images, epochs and devices."""
        images = self.images
        return (
            f"{self.recipe.encoder} on {images.name}: {len(images.samples('train'))} train, "
            f"{len(images.samples('val'))} val images, {len(images.classes)} classes; {self.recipe.epochs} epochs "
            f"in steps of {self.recipe.batch_size} on {fabric.world_size} x {fabric.device.type}"
        )

    def build(self, last: Path, note: Note) -> Classifier:
        """Return a classifier with random weights."""
        return build_classifier(self.recipe.encoder, len(self.images.classes), self.recipe.drop_path)

    def restore(self, model: Classifier, state: dict[str, Any], last: Path) -> None:
        """Load the weights in ``state``; raises a UserError if the images have changed since they were saved."""
        if state["data"] != (now := images_identity(self.images)):
            raise UserError(
                f"{last.parent}: the run began with {state['data']}, now there is {now}; "
                f"restore those images, or start a new run"
            )
        model.load_state_dict(state["model"])

    def build_optimizer(self, model: Classifier) -> Optimizer:
        """Return AdamW without weight decay for norms and biases."""
        return build_optimizer(classification_groups(model, self.recipe.weight_decay), self.recipe.lr)

    def facts(self) -> dict[str, Any]:
        """Return facts about the images, and the version of timm, which augments the images."""
        classes = list(self.images.classes)
        data = images_identity(self.images) | {"classes": classes, "fingerprint": images_fingerprint(self.images)}
        return {"data": data, "timm": version("timm")}

    def batches(self, start: int, *, rank: int, world_size: int) -> DataLoader[Batch]:
        """Return a loader of (normalized images, labels).  (b, C, size, size), (b,)"""
        samples = self.images.samples("train")
        repeats = self.recipe.repeats
        batches = StepBatches.from_plan(
            len(samples), self.plan, start=start, rank=rank, world_size=world_size, repeats=repeats
        )
        dataset = ClassificationDataset(samples, RandomAugmentation(self.recipe), self.recipe.seed)
        return build_loader(dataset, workers=self.recipe.workers, batch_sampler=batches)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then cosine decay."""
        recipe = self.recipe
        return cosine_rate(
            step,
            steps=self.plan.steps,
            warmup=recipe.warmup_epochs * self.steps_per_epoch,
            first=recipe.warmup_lr,
            peak=recipe.lr,
            last=recipe.min_lr,
        )

    def seed_of_step(self, step: int, rank: int) -> int:
        """Return the seed for mixing and stochastic depth in a step of one process."""
        return seed_of(self.recipe.seed, step, rank, 0)

    def augment(self, batch: Batch, seed: int) -> Batch:
        """Mix the images of a batch and return them with soft targets.  labels (b,) -> targets (b, K)"""
        return self.mixing(*batch, seed)

    def loss(self, batch: Batch, fabric: Fabric) -> BatchLoss:
        """Return the function that computes the cross-entropy with soft targets."""
        size = len(batch[0])
        return lambda logits, _, targets: F.cross_entropy(logits, targets, reduction="sum") / size

    @property
    def memory_advice(self) -> str:
        """What to change in the recipe when memory runs out."""
        share = self.recipe.micro_batch_size or self.recipe.batch_size
        return f"set micro_batch_size below {share} (the step stays the same)" if share > 1 else "lower size"

    @property
    def divergence_advice(self) -> str:
        """What to change in the recipe when the loss is no longer finite."""
        return "lower base_lr, set clip_grad, or set precision fp32"

    def evaluate(self, model: Classifier, fabric: Fabric, progress: OnProgress) -> Validation:
        """Return the top-1 and top-5 accuracy on val."""
        return Validation(measure_accuracy(fabric, model, self.images.samples("val"), self.recipe, progress))

    def counter(self, step: int) -> tuple[str, int]:
        """Return "epoch" and the number of epochs completed at a step."""
        return "epoch", step // self.steps_per_epoch

    def write_best(self, model: Classifier, folder: Path, step: int, evaluation: Validation) -> None:
        """Write the encoder with its classifier, and a file that records their origin."""
        _, epoch = self.counter(step)
        facts = {
            "source": "pre-trained with segformer",
            "recipe": self.recipe.name,
            "data": Path(self.images.name).name,
            "epoch": epoch,
            "val": dict(evaluation.figures),
            "classes": self.images.classes,
        }

        def fill(partial: Path) -> None:
            write_bytes(partial / ENCODER, serialize(encoder_state(model), {"format": "pt"}))
            write_json(partial / PROVENANCE, facts)

        write_folder(folder, fill)

    def state(self, model: Classifier) -> dict[str, Any]:
        """Return the weights, and the facts about the images that ``restore`` compares."""
        return {"model": model.state_dict(), "data": images_identity(self.images)}

    def write_page(self, model: Classifier, run_dir: Path, evaluation: Validation) -> Path:
        """Write report.html into the run folder and return its path."""
        return write_pretraining_page(run_dir, self.recipe, model, self.plan.steps, self.labels)


def count_steps(num_samples: int, batch_size: int) -> int:
    """Return the number of steps per epoch: as many full batches as the samples fill, at least one."""
    return max(1, num_samples // batch_size)


def pretraining_plan(recipe: PretrainRecipe, steps_per_epoch: int) -> Plan:
    """Return the settings of a recipe that the training loop needs, with epochs converted to steps."""
    return Plan(
        steps=recipe.epochs * steps_per_epoch,
        batch_size=recipe.batch_size,
        micro_batch_size=recipe.micro_batch_size,
        eval_every=recipe.eval_every * steps_per_epoch,
        log_every=recipe.log_every,
        seed=recipe.seed,
        precision=recipe.precision,
        ema=recipe.ema,
        patience=recipe.patience,
        clip_grad=recipe.clip_grad,
        wandb=recipe.wandb,
    )


def images_identity(images: LabeledImages) -> dict[str, Any]:
    """Return name, images per split and number of classes; a run cannot be resumed with different values."""
    splits = {split: len(samples) for split, samples in images.splits.items()}
    return {"name": images.name, "images": splits, "classes": len(images.classes)}


def images_fingerprint(images: LabeledImages) -> str:
    """Return a digest of class names, image names and labels.  No image is opened, because there are 1.28 million."""
    digest = hashlib.blake2b(repr(images.classes).encode(), digest_size=8)
    for split, files in images.splits.items():
        digest.update(repr((split, files.names.tolist())).encode())
        digest.update(files.labels.tobytes())
    return digest.hexdigest()


def encoder_state(model: Classifier) -> dict[str, Tensor]:
    """Return the tensors of an encoder and its classifier under their names in the authors' files."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return write(nvlabs.ENCODER, state)
