"""What a model and a run are made of: frozen dataclasses of JSON values.

A docstring under a field is its help on the command line.
"""

import difflib
import types
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from segformer.errors import UserError

IGNORE_INDEX = 255
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

T = TypeVar("T")
Size = tuple[int, int]
Pixels = Literal["rgb", "raw"]
Precision = Literal["fp32", "bf16", "fp16"]
Blend = Literal["uniform", "gaussian", "cosine"]
Output = Literal["mask", "overlay", "polygons", "scores"]  # what a prediction is saved as
Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture, except for the classes."""

    encoder: str
    """Name of the encoder."""
    decoder: str = "all_mlp"
    """Name of the decoder, which turns the encoder's maps into logits."""
    decoder_channels: int
    """Width C of the decoder."""
    in_channels: int = 3
    """Channels of an image."""
    binary: bool = False
    """For two classes: one logit, that of the second, against 0; trained, it is binary cross-entropy."""
    drop_path: float = 0.1
    """Stochastic depth rate of the last block; it rises linearly from 0."""
    dropout: float = 0.1
    """Dropout of whole channels before the classifier."""
    norm_eps: float = 1e-6
    """LayerNorm eps of blocks and stages."""
    embed_norm_eps: float = 1e-5
    """LayerNorm eps after patch embedding and sequence reduction."""
    align_corners: bool = False
    """How logits are upsampled to the image."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image to the model's input; training, evaluation, prediction and export all read it from here."""

    resize: Literal["fit", "squash", "none"] = "fit"
    """fit: into (long_side, short_side), aspect kept; squash: to short_side x long_side (height x width); none."""
    long_side: int = 2048
    """In pixels."""
    short_side: int = 512
    """In pixels."""
    multiple: int = 32
    """A second resize takes each side up to a multiple of this (1: off)."""
    antialias: bool = False
    """Whether shrinking averages; the released models were trained without."""
    pixels: Pixels = "rgb"
    """rgb: every image as 8-bit RGB; raw: any number of channels as stored, in their own units."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Per channel, in the units of the pixels (0-255 for rgb)."""
    std: tuple[float, ...] = IMAGENET_STD
    """Per channel, in the units of the pixels."""

    @classmethod
    def for_channels(cls, in_channels: int, **options: Any) -> "Preprocessing":
        """Return ImageNet's statistics for three channels; for another count their average, for raw pixels."""
        if in_channels == 3:
            return cls(**options)
        mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
        return cls(**{"pixels": "raw", "mean": (mean,) * in_channels, "std": (std,) * in_channels} | options)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a preprocessed image becomes a mask at test time."""

    crop: Size | None = None
    """Height and width of a sliding window; None: the whole image at once."""
    stride: Size | None = None
    """Step of the sliding window; None: three quarters of the crop."""
    blend: Blend = "uniform"
    """How windows count where they overlap: all the same (the paper), or their centres more than their borders."""
    windows: int = 1
    """Windows that the model takes at once: memory for speed, on a GPU."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which the image is tested; probabilities are averaged."""
    flip: bool = False
    """Whether each scale is tested mirrored as well."""

    def __post_init__(self) -> None:
        for name in ("crop", "stride", "scales"):
            if min(getattr(self, name) or (1,)) <= 0 or getattr(self, name) == ():
                raise UserError(f"eval.{name} must be positive, got {getattr(self, name)}")
        if self.windows < 1:
            raise UserError(f"eval.windows must be at least 1, got {self.windows}")
        if self.crop and self.stride and (self.stride[0] > self.crop[0] or self.stride[1] > self.crop[1]):
            raise UserError(f"eval.stride must be at most eval.crop {self.crop}, got {self.stride}; lower it")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images and masks, and how training samples are cut from them."""

    dataset: str = "folder"
    """folder, toytown, ade20k, cityscapes, coco_stuff, mapillary, mapillary_as_cityscapes, camvid, hub."""
    root: str = ""
    """Where it lies: a folder, or owner/name on the hub; toytown is drawn, and needs none."""
    also: tuple[str, ...] = ()
    """More data with the same classes, each as --data takes it; joined split by split."""
    masks: str = ""
    """Where masks lie, if not in masks/ below the root (generic folders only)."""
    relabel: tuple[tuple[str, str], ...] = ()
    """Pairs of a class and its new name: the same name merges classes, "" ignores one."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to evaluate on."""
    resize: Size = (2048, 512)
    """(long, short) side that an image is fitted into before ``ratio`` is applied."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Bounds of the random factor on ``resize``."""
    crop: Size = (512, 512)
    """Height and width of a training sample."""
    max_class_share: float = 0.75
    """Largest share of one class in a crop before another is tried (1: off)."""
    rare_crop: float = 0.0
    """Probability that a crop is laid around a pixel of a class drawn from the image's with equal chances."""
    flip: float = 0.5
    """Probability of mirroring."""
    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are distorted."""
    reduced_decode: bool = False
    """Whether JPEGs more than twice as large as ``resize`` needs are decoded at 1/2, 1/4 or 1/8: much faster."""
    cache: str = ""
    """A folder to keep decoded images and masks in, so that each file is decoded once; none: off."""

    def __post_init__(self) -> None:
        for name in ("rare_crop", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"data.{name} must be a probability, 0-1, got {getattr(self, name)}")
        if min(*self.resize, *self.crop) < 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(
                f"data.resize, data.crop and data.ratio must be positive and the ratio ascending, "
                f"got {self.resize}, {self.crop}, {self.ratio}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimisation."""

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Images per optimizer step, over all devices and accumulated micro-batches."""
    micro_batch_size: int | None = None
    """Images per forward pass and device; None: the whole share of a device at once."""
    lr: float = 6e-5
    """Peak learning rate of the encoder."""
    decoder_lr_factor: float = 10.0
    """The decoder's learning rate over the encoder's."""
    weight_decay: float = 0.01
    """Of everything but the encoder's norm layers."""
    warmup_steps: int = 1500
    """Steps of linear warm-up."""
    warmup_ratio: float = 1e-6
    """First learning rate of the warm-up over the peak."""
    power: float = 1.0
    """Of the polynomial decay to 0."""
    loss_average: Literal["all", "valid"] = "all"
    """Pixels that the loss is averaged over: all (the released recipes), or only those not ignored."""
    loss: str = "cross_entropy"
    """Name of the loss: cross_entropy, ohem (only the hardest pixels count) or focal (easy pixels count less)."""
    loss_options: tuple[tuple[str, float], ...] = ()
    """Options of the loss as pairs of name and value, such as gamma 3.0."""
    dice: float = 0.0
    """Weight of a Dice loss added to it."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the loss."""
    balanced: bool = False
    """Whether class_weights are made from the training masks: 1 / sqrt(share of pixels), of mean 1."""
    ema: float | None = None
    """Decay per step of an average of the weights, which is then evaluated and kept as the best model."""
    patience: int | None = None
    """Evaluations in a row without a better mIoU after which training ends; None: never."""
    frozen_stages: int = 0
    """Stages of the encoder, from the first, that keep their weights; 4: all."""
    frozen_norm: bool = False
    """Whether the decoder's BatchNorm keeps its statistics and weights."""
    precision: Precision = "fp32"
    """Automatic mixed precision of the forward pass."""
    checkpointing: bool = False
    """Whether blocks of the encoder are computed again on the way back instead of kept: less memory, a third slower."""
    compile: bool = False
    """Whether torch.compile makes the model faster, after minutes of compiling."""
    deterministic: bool = False
    """Whether only deterministic algorithms are used (on a GPU: slower); a CPU is deterministic anyway."""
    eval_every: int
    """Steps between evaluations; the last step is always evaluated."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    wandb: str | None = None
    """Project of Weights & Biases to log to as well (pip install wandb)."""
    workers: int = 2
    """Processes that load data."""
    init_from: str | None = None
    """Weights to start from: any model or encoder that can be loaded; None: random."""
    seed: int = 0
    """Of initialisation, sample order, augmentation and dropout."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise UserError(f"train.lr must be positive, got {self.lr}")
        if self.class_weights is not None and self.balanced:
            raise UserError("train.class_weights and train.balanced exclude one another; leave one out")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"train.ema must be between 0 and 1, or None, got {self.ema}")
        if not 0 <= self.frozen_stages <= 4:
            raise UserError(f"train.frozen_stages must be 0-4, got {self.frozen_stages}")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"train.patience must be at least 1 or None, got {self.patience}")
        for name in ("workers", "seed", "dice"):
            if getattr(self, name) < 0:
                raise UserError(f"train.{name} must be 0 or more, got {getattr(self, name)}")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise UserError(f"train.micro_batch_size must be at least 1 or None, got {self.micro_batch_size}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about a training run."""

    name: str
    """Also the name of its run folder."""
    description: str
    """One line: what it is for."""
    paper: str = ""
    """What the paper reports for it, and on what."""
    model: ModelConfig
    """Architecture."""
    data: DataConfig
    """Data and augmentation."""
    preprocessing: Preprocessing
    """Test transform."""
    train: TrainConfig
    """Optimisation."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Test protocol."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """config.json of a model folder: everything about a model but its weights."""

    model: ModelConfig
    preprocessing: Preprocessing
    eval: EvalConfig
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    provenance: dict[str, Any]
    """Where the weights come from: recipe, step, figures, versions."""
    licence: str
    """Of the weights; "unknown" where nobody said."""

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes):
            raise UserError(f"palette must have {len(self.classes)} colours, one a class, got {len(self.palette)}")

    @classmethod
    def for_classes(cls, model: ModelConfig, num_classes: int, preprocessing: Preprocessing) -> "ModelCard":
        """Return the card of a model whose classes have no names yet."""
        return cls(
            model=model,
            preprocessing=preprocessing,
            eval=EvalConfig(),
            classes=tuple(f"class_{k}" for k in range(num_classes)),
            palette=default_palette(num_classes),
            provenance={},
            licence="unknown",
        )


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Colours that are far from one another for the first few dozen classes.

    Class k gets the bits of k, spread over the high bits of red, green and blue (the colour map of PASCAL VOC),
    starting at 1 so that no class is black.

    >>> default_palette(2)
    ((128, 0, 0), (0, 128, 0))
    """

    def channel(index: int, shift: int) -> int:
        return sum(((index >> (3 * bit + shift)) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(k, 0), channel(k, 1), channel(k, 2)) for k in range(1, num_classes + 1))


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a UserError that names the closest choice where ``value`` is none of them."""
    known = list(choices)
    if value not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}; got '{value}'{closest(value, known)}")


def closest(value: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the most similar known word, or nothing."""
    words = list(known)
    similar = difflib.get_close_matches(value, words, n=1) or [word for word in words if value and value in word]
    return f"; did you mean '{similar[0]}'?" if similar else ""


def to_json(config: Any) -> dict[str, Any]:
    """Return a config as a JSON object."""
    return asdict(config)


def from_json(cls: type[T], values: Any, where: str = "") -> T:
    """Build a config from a JSON object; an unknown, missing or mistyped key is a UserError that names it."""
    if not isinstance(values, dict):
        raise UserError(f"{where or cls.__name__} must be an object, got {values!r}")
    hints = get_type_hints(cls)
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in hints:
            raise UserError(f"unknown field '{prefix}{key}'{closest(key, hints)}")
    missing = [f.name for f in fields(cast("Any", cls)) if _required(f) and f.name not in values]
    if missing:
        raise UserError(f"missing field '{prefix}{missing[0]}'")
    return cls(**{key: _parse(hints[key], value, prefix + key) for key, value in values.items()})


def _required(entry: Any) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _parse(kind: Any, value: Any, where: str) -> Any:
    """Check a JSON value against a type of a config field, and turn lists into tuples."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [a for a in arguments if a is not type(None)]
        return _parse(inner, value, where)
    if is_dataclass(kind):
        return from_json(cast("type", kind), value, where)
    if origin is Literal:
        check_choice(where, value if isinstance(value, str) else repr(value), arguments)
        return value
    if origin is tuple:
        return _parse_tuple(arguments, value, where)
    if origin is dict:
        kind = dict
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where} must be {kind.__name__}, got {value!r}")
    return value


def _parse_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where} must be a list, got {value!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise UserError(f"{where} must have {len(kinds)} values, got {len(value)}: {value!r}")
    return tuple(_parse(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(zip(kinds, value, strict=True)))
