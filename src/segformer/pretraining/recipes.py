"""Recipes for pre-training encoders as classifiers, by name."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from segformer.config import Precision
from segformer.errors import UserError
from segformer.files import read_json
from segformer.json_config import from_json
from segformer.published import IMAGENET_TOP1
from segformer.validation import OneOf, Rule, check_choice, check_fields, optional

RANDAUG = re.compile(r"rand(-((m|n|mmax|inc)\d+|(p|mstd)\d+(\.\d+)?))*")


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Everything that defines a pre-training run."""

    name: str
    """Name of the recipe and of its run folder."""
    description: str
    """Purpose of the recipe in one line."""
    paper: str = ""
    """Result that the paper reports."""
    encoder: Annotated[str, OneOf("models.encoders.ENCODERS")]
    """Name of the encoder."""
    drop_path: float = 0.1
    """Stochastic depth rate of the last block; the rate rises linearly from 0 at the first block."""
    root: str = "data/imagenet"
    """Folder of the images: train/ and val/ with one folder per class, or the official download of ImageNet."""
    size: int = 224
    """Side length of the square images in training and evaluation, in pixels."""
    resize_ratio: float = 0.875
    """Side length of the center crop in evaluation, as a share of the short side of the image."""
    min_area: float = 0.08
    """Smallest area of a training crop, as a share of the area of the image."""
    randaug: str | None = "rand-m9-mstd0.5-inc1"
    """RandAugment in timm's notation (m: magnitude, n: operations, mstd: noise of the magnitude); None: off."""
    erasing: float = 0.25
    """Probability that a rectangle of the image is filled with noise (0: off)."""
    repeats: int = 3
    """Number of differently augmented copies of each image in a batch (repeated augmentation; 1: off)."""
    mixup: float = 0.8
    """Alpha of Mixup's beta distribution (0: off)."""
    cutmix: float = 1.0
    """Alpha of CutMix's beta distribution (0: off); if Mixup is also on, each batch uses one of the two."""
    mixup_prob: float = 1.0
    """Probability that Mixup or CutMix is applied to a batch."""
    label_smoothing: float = 0.1
    """Share of the target probability that is spread evenly over all classes (0: off)."""
    epochs: int = 300
    """Number of epochs; one epoch processes as many samples as there are training images."""
    batch_size: int = 1024
    """Images per optimizer step, over all devices and micro-batches."""
    micro_batch_size: int | None = None
    """Images per forward pass on each device; None: the device's whole share of the batch."""
    base_lr: float = 5e-4
    """Peak learning rate for a batch_size of 512; for other sizes it is scaled in proportion."""
    min_lr: float = 1e-5
    """Learning rate at the end of the cosine decay."""
    warmup_epochs: int = 5
    """Number of epochs of linear warm-up."""
    warmup_lr: float = 1e-6
    """Learning rate at the start of the warm-up."""
    weight_decay: float = 0.05
    """Weight decay of all weights except norms and biases."""
    clip_grad: float | None = None
    """Maximum norm to which gradients are clipped; None: no clipping."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights.  The average is evaluated, and saved as the best
    model, in place of the weights.  None: off."""
    patience: int | None = None
    """Stop after this many evaluations without a better top-1 accuracy; None: never."""
    precision: Precision = "fp32"
    """Automatic mixed precision of the forward pass."""
    eval_every: int = 1
    """Number of epochs between evaluations; the last epoch is always evaluated."""
    log_every: int = 50
    """Number of steps between two lines in metrics.jsonl."""
    wandb: str | None = None
    """Weights & Biases project to log to (needs pip install 'segformer[wandb]'); None: off."""
    workers: int = 8
    """Number of data-loading processes for each device."""
    seed: int = 0
    """Seed for initialization, sample order, augmentation, mixing and stochastic depth."""

    def __post_init__(self) -> None:
        check_fields(self, RULES)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise UserError(f"warmup_epochs must be 0 or more and below epochs {self.epochs}, got {self.warmup_epochs}")

    @property
    def lr(self) -> float:
        """Peak learning rate, scaled to the batch size of the recipe."""
        return self.base_lr * self.batch_size / 512

    @property
    def mixes(self) -> bool:
        """Whether Mixup or CutMix is applied to some batches."""
        return self.mixup_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


RULES = (
    Rule(("epochs", "batch_size", "repeats", "eval_every", "log_every"), lambda n: n >= 1, "at least 1"),
    Rule(("workers", "seed", "mixup", "cutmix", "weight_decay", "min_lr", "warmup_lr"), lambda x: x >= 0, "0 or more"),
    Rule(("erasing", "mixup_prob"), lambda p: 0 <= p <= 1, "a probability, 0-1"),
    Rule(("drop_path", "label_smoothing"), lambda p: 0 <= p < 1, "0 or more and below 1"),
    Rule(("resize_ratio", "min_area"), lambda p: 0 < p <= 1, "above 0 and at most 1"),
    Rule(("base_lr",), lambda x: x > 0, "positive"),
    Rule(("size",), lambda n: n >= 32, "at least 32, the coarsest stride of the encoder"),
    Rule(("micro_batch_size", "patience"), optional(lambda n: n >= 1), "at least 1 or None"),
    Rule(("clip_grad",), optional(lambda x: x > 0), "positive or None"),
    Rule(("ema",), optional(lambda p: 0 < p < 1), "between 0 and 1, or None"),
    Rule(("randaug",), optional(lambda s: bool(RANDAUG.fullmatch(s))), "like rand-m9-mstd0.5-inc1, or None"),
)


def imagenet(size: str, drop_path: float) -> PretrainRecipe:
    """Return the recipe of an MiT on ImageNet: DeiT's, which trains PVTv2, to which the authors refer."""
    return PretrainRecipe(
        name=f"imagenet_{size}",
        description=f"MiT-{size.upper()} on ImageNet-1K, trained like PVTv2.",
        paper=f"top-1 {IMAGENET_TOP1[f'mit_{size}']} on val",
        encoder=f"mit_{size}",
        drop_path=drop_path,
        precision="bf16",
    )


PRETRAIN_RECIPES: dict[str, PretrainRecipe] = {
    recipe.name: recipe
    for recipe in (
        imagenet("b0", drop_path=0.1),
        imagenet("b1", drop_path=0.1),
        imagenet("b2", drop_path=0.1),
        imagenet("b3", drop_path=0.3),
        imagenet("b4", drop_path=0.3),
        imagenet("b5", drop_path=0.3),
        # A small model underfits in few epochs.  So regularization is weak, and crops keep most of the small image.
        PretrainRecipe(
            name="tiny_imagenet_b0",
            description="MiT-B0 on Tiny ImageNet, 200 classes of 64 x 64 images: a short run for one GPU.",
            encoder="mit_b0",
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
            precision="bf16",
            eval_every=5,
        ),
    )
}


def find_pretrain_recipe(name: str) -> PretrainRecipe:
    """Return a recipe by its name or from a recipe.json; raises a UserError that suggests the closest known name."""
    if name.endswith(".json"):
        return read_pretrain_recipe(Path(name))
    check_choice("RECIPE", name, PRETRAIN_RECIPES)
    return PRETRAIN_RECIPES[name]


def read_pretrain_recipe(path: Path) -> PretrainRecipe:
    """Return the recipe in a recipe.json; raises a UserError that names the file and the wrong field."""
    if not path.is_file():
        raise UserError(f"{path}: no such recipe; give the name of a recipe or an existing recipe.json")
    values = read_json(path)
    try:
        return from_json(PretrainRecipe, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
