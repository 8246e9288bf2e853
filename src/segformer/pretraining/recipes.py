"""Recipes of the encoder's classification pre-training by name; each differs from another by what it replaces."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segformer.config import check_choice, from_json
from segformer.errors import UserError
from segformer.files import read_json

RANDAUG = re.compile(r"rand(-((m|n|mmax|inc)\d+|(p|mstd)\d+(\.\d+)?))*")
RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (  # fields, what they must be, and in words
    (("epochs", "batch_size", "repeats", "eval_every", "log_every"), lambda n: n >= 1, "at least 1"),
    (("workers", "seed", "mixup", "cutmix", "weight_decay", "min_lr", "warmup_lr"), lambda x: x >= 0, "0 or more"),
    (("erasing", "mixup_prob"), lambda p: 0 <= p <= 1, "a probability, 0-1"),
    (("drop_path", "label_smoothing"), lambda p: 0 <= p < 1, "0 or more and below 1"),
    (("resize_ratio", "min_area"), lambda p: 0 < p <= 1, "above 0 and at most 1"),
    (("base_lr",), lambda x: x > 0, "positive"),
    (("size",), lambda n: n >= 32, "at least 32, the encoder's coarsest stride"),
    (("micro_batch_size",), lambda n: n is None or n >= 1, "at least 1 or None"),
    (("clip_grad",), lambda x: x is None or x > 0, "positive or None"),
    (("ema",), lambda p: p is None or 0 < p < 1, "between 0 and 1, or None"),
    (("randaug",), lambda s: s is None or bool(RANDAUG.fullmatch(s)), "like rand-m9-mstd0.5-inc1, or None"),
)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Everything about a pre-training run."""

    name: str
    """Also the name of its run folder."""
    description: str
    """One line: what it is for."""
    paper: str = ""
    """What the paper reports for it, and on what."""
    encoder: str
    """mit_b0 ... mit_b5."""
    drop_path: float = 0.1
    """Stochastic depth rate of the last block; it rises linearly from 0."""
    root: str = "data/imagenet"
    """Where the images lie: train/ and val/ of one folder per class, or ImageNet's official tree."""
    size: int = 224
    """Side of the square images, in training and at test."""
    resize_ratio: float = 0.875
    """At test the short side is resized to size / resize_ratio, and the centre cut out."""
    min_area: float = 0.08
    """Smallest share of an image's area that a training crop covers."""
    randaug: str | None = "rand-m9-mstd0.5-inc1"
    """RandAugment in timm's notation (m: magnitude, n: operations, mstd: its noise, inc1: all grow); None: off."""
    erasing: float = 0.25
    """Probability that a rectangle is filled with noise (0: off)."""
    repeats: int = 3
    """Repeated augmentation: how often an image occurs in a batch, augmented anew (1: off)."""
    mixup: float = 0.8
    """Alpha of Mixup's beta distribution (0: off)."""
    cutmix: float = 1.0
    """Alpha of CutMix's beta distribution (0: off); with both on, a step takes either with equal chances."""
    mixup_prob: float = 1.0
    """Probability that a batch is mixed at all."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    epochs: int = 300
    """Each draws as many samples as there are training images."""
    batch_size: int = 1024
    """Images per optimizer step, over all devices and accumulated micro-batches."""
    micro_batch_size: int | None = None
    """Images per forward pass and device; None: the whole share of a device at once."""
    base_lr: float = 5e-4
    """Peak learning rate per 512 images of a batch."""
    min_lr: float = 1e-5
    """Learning rate that the cosine ends at."""
    warmup_epochs: int = 5
    """Epochs of linear warm-up."""
    warmup_lr: float = 1e-6
    """First learning rate of the warm-up."""
    weight_decay: float = 0.05
    """Of everything but norms and biases."""
    clip_grad: float | None = None
    """Largest norm of the gradient; None: any."""
    ema: float | None = None
    """Decay per step of an average of the weights, which is then evaluated and kept as the best encoder; None: off."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Automatic mixed precision of the forward pass."""
    eval_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    workers: int = 8
    """Processes that load data, for each device."""
    seed: int = 0
    """Of initialisation, sample order, augmentation, mixing and stochastic depth."""

    def __post_init__(self) -> None:
        for names, fits, expected in RANGES:
            for name in names:
                if not fits(getattr(self, name)):
                    raise UserError(f"{name} must be {expected}, got {getattr(self, name)}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(f"warmup_epochs must be 0 or more and below epochs {self.epochs}, got {self.warmup_epochs}")

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return self.base_lr * self.batch_size / 512

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed."""
        return self.mixup_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


# The authors never released theirs and point to PVTv2's, which is DeiT's.
IMAGENET_B0 = PretrainRecipe(
    name="imagenet_b0",
    description="ImageNet-1K: MiT-B0, as PVTv2 is trained.",
    paper="top-1 70.5 on val",
    encoder="mit_b0",
    precision="bf16",
)
IMAGENET_B1 = replace(
    IMAGENET_B0,
    name="imagenet_b1",
    description="ImageNet-1K: MiT-B1, as PVTv2 is trained.",
    paper="top-1 78.7 on val",
    encoder="mit_b1",
)
IMAGENET_B2 = replace(
    IMAGENET_B0,
    name="imagenet_b2",
    description="ImageNet-1K: MiT-B2, as PVTv2 is trained.",
    paper="top-1 81.6 on val",
    encoder="mit_b2",
)
IMAGENET_B3 = replace(
    IMAGENET_B0,
    name="imagenet_b3",
    description="ImageNet-1K: MiT-B3, as PVTv2 is trained.",
    paper="top-1 83.1 on val",
    encoder="mit_b3",
    drop_path=0.3,
)
IMAGENET_B4 = replace(
    IMAGENET_B3,
    name="imagenet_b4",
    description="ImageNet-1K: MiT-B4, as PVTv2 is trained.",
    paper="top-1 83.6 on val",
    encoder="mit_b4",
)
IMAGENET_B5 = replace(
    IMAGENET_B3,
    name="imagenet_b5",
    description="ImageNet-1K: MiT-B5, as PVTv2 is trained.",
    paper="top-1 83.8 on val",
    encoder="mit_b5",
)

# In few epochs a small model underfits: little regularisation, and crops that keep most of so small an image.
TINY_IMAGENET_B0 = replace(
    IMAGENET_B0,
    name="tiny_imagenet_b0",
    description="Tiny ImageNet, 200 classes of 64 pixels: MiT-B0, a short run for one GPU.",
    paper="",
    drop_path=0.0,
    root="data/tiny_imagenet",
    size=64,
    resize_ratio=1.0,
    min_area=0.35,
    randaug="rand-m5-n1-inc1",
    erasing=0.0,
    repeats=1,
    mixup=0.0,
    mixup_prob=0.5,
    epochs=30,
    batch_size=256,
    base_lr=2e-3,
    warmup_epochs=2,
    eval_every=5,
)

PRETRAIN_RECIPES: dict[str, PretrainRecipe] = {
    recipe.name: recipe
    for recipe in (
        *(IMAGENET_B0, IMAGENET_B1, IMAGENET_B2, IMAGENET_B3, IMAGENET_B4, IMAGENET_B5),
        TINY_IMAGENET_B0,
    )
}


def find_pretrain_recipe(name: str) -> PretrainRecipe:
    """Return a recipe by name or from a recipe.json; raises a UserError that names the closest known one."""
    if name.endswith(".json"):
        return read_pretrain_recipe(Path(name))
    check_choice("RECIPE", name, PRETRAIN_RECIPES)
    return PRETRAIN_RECIPES[name]


def read_pretrain_recipe(path: Path) -> PretrainRecipe:
    """Read a recipe.json; raises a UserError that names the file and the field at fault."""
    if not path.is_file():
        raise UserError(f"{path}: no such recipe")
    values = read_json(path)
    try:
        return from_json(PretrainRecipe, values)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
