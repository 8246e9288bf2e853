"""The configuration of a model and of a training run: frozen dataclasses of JSON values.

The docstring under a field is its help on the command line.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from segformer.errors import UserError
from segformer.validation import OneOf, Rule, check_fields, optional

IGNORE_INDEX = 255
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

Size = tuple[int, int]
Pixels = Literal["rgb", "raw"]
Precision = Literal["fp32", "bf16", "fp16"]
Blend = Literal["uniform", "gaussian", "cosine"]
Output = Literal["mask", "overlay", "polygons", "scores"]  # what a prediction is saved as
Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of the model, except for its classes."""

    encoder: Annotated[str, OneOf("models.encoders.ENCODERS")]
    """Encoder, which turns an image into feature maps."""
    decoder: Annotated[str, OneOf("models.decoders.DECODERS")] = "all_mlp"
    """Decoder, which turns the feature maps into logits."""
    decoder_channels: int
    """Width of the decoder: the paper's C."""
    in_channels: int = 3
    """Number of channels of the images."""
    binary: bool = False
    """For two classes: predict a single logit, for the second class, and train with binary cross-entropy."""
    drop_path: float = 0.1
    """Stochastic depth rate of the encoder's last block; it rises linearly from 0 at the first block."""
    dropout: float = 0.1
    """Probability of dropping a channel before the classifier."""
    norm_eps: float = 1e-6
    """Epsilon of the LayerNorms in the blocks and after each stage."""
    embed_norm_eps: float = 1e-5
    """Epsilon of the LayerNorms after patch embedding and sequence reduction."""
    align_corners: bool = False
    """Align the corner pixels when logits are upsampled to the size of the image."""

    def __post_init__(self) -> None:
        check_fields(self, MODEL_RULES, "model")


MODEL_RULES = (
    Rule(("decoder_channels", "in_channels"), lambda n: n >= 1, "at least 1"),
    Rule(("drop_path", "dropout"), lambda p: 0 <= p < 1, "0 or more and below 1"),
    Rule(("norm_eps", "embed_norm_eps"), lambda x: x >= 0, "0 or more"),
)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the model's input, in training, evaluation, prediction and export alike."""

    resize: Literal["fit", "squash", "none"] = "fit"
    """Resize rule. fit: into (long_side, short_side), keeping the aspect ratio; squash: to exactly short_side x
    long_side (height x width); none: keep the size."""
    long_side: int = 2048
    """Long side of a resized image, in pixels."""
    short_side: int = 512
    """Short side of a resized image, in pixels."""
    multiple: int = 32
    """Enlarge each side to a multiple of this, in a second resize (1: off)."""
    antialias: bool = False
    """Average pixels when an image is shrunk; the released models were trained without."""
    pixels: Pixels = "rgb"
    """Kind of pixels. rgb: every image as 8-bit RGB; raw: any number of channels, with the values of the file."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel, in pixel values (0-255 for rgb)."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel, in pixel values (0-255 for rgb)."""

    def __post_init__(self) -> None:
        check_fields(self, PREPROCESSING_RULES, "preprocessing")

    @classmethod
    def for_channels(cls, in_channels: int, **options: Any) -> "Preprocessing":
        """Return ImageNet's statistics for three channels; for another count, raw pixels and the averages of those."""
        if in_channels == 3:
            return cls(**options)
        mean = sum(IMAGENET_MEAN) / 3
        std = sum(IMAGENET_STD) / 3
        return cls(**{"pixels": "raw", "mean": (mean,) * in_channels, "std": (std,) * in_channels} | options)


PREPROCESSING_RULES = (
    Rule(("long_side", "short_side", "multiple"), lambda n: n >= 1, "at least 1"),
    Rule(("std",), lambda values: all(value > 0 for value in values), "positive"),
)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Test protocol: how a preprocessed image becomes a mask."""

    crop: Size | None = None
    """Height and width of a sliding window; None: the whole image at once."""
    stride: Size | None = None
    """Vertical and horizontal step of the sliding window; None: three quarters of the crop."""
    blend: Blend = "uniform"
    """Weight of a pixel where windows overlap. uniform: the same everywhere, as in the paper; gaussian, cosine: larger
    near the center of a window."""
    windows: int = 1
    """Number of windows in a batch: on a GPU, more are faster and take more memory."""
    scales: tuple[float, ...] = (1.0,)
    """Factors on the image's size; the probabilities of all scales are averaged."""
    flip: bool = False
    """Also test the mirrored image at each scale."""

    def __post_init__(self) -> None:
        check_fields(self, EVAL_RULES, "eval")
        if self.crop and self.stride and (self.stride[0] > self.crop[0] or self.stride[1] > self.crop[1]):
            raise UserError(f"eval.stride must be at most eval.crop {self.crop}, got {self.stride}; lower it")


EVAL_RULES = (
    Rule(("crop", "stride"), optional(lambda size: min(size) > 0), "positive"),
    Rule(("scales",), lambda scales: bool(scales) and min(scales) > 0, "positive"),
    Rule(("windows",), lambda n: n >= 1, "at least 1"),
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images and masks, and how training samples are cut from them."""

    dataset: Annotated[str, OneOf("data.sources.SOURCES")] = "folder"
    """Kind of data set."""
    root: str = ""
    """Where the data set is: a folder, or owner/name on the hub; toytown is drawn and needs neither."""
    also: tuple[str, ...] = ()
    """More data sets with the same classes, written as for --data; they are joined split by split."""
    masks: str = ""
    """Folder of the masks, if it is not masks/ below the root (generic folders only)."""
    relabel: tuple[tuple[str, str], ...] = ()
    """Pairs of a class and its new name; classes with the same new name are merged, and "" ignores a class."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to evaluate on."""
    resize: Size = (2048, 512)
    """Long and short side that a training image is fitted into, before the random factor ``ratio``."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest random factor on ``resize``."""
    crop: Size = (512, 512)
    """Height and width of a training sample."""
    max_class_share: float = 0.75
    """Largest share of a crop that one class may cover before another crop is tried (1: off)."""
    rare_crop: float = 0.0
    """Probability of placing the crop around a pixel of a class that is drawn uniformly from the image's classes."""
    flip: float = 0.5
    """Probability of mirroring."""
    photometric: bool = True
    """Change brightness, contrast, saturation and hue at random."""
    reduced_decode: bool = False
    """Decode JPEGs that are more than twice as large as ``resize`` needs at 1/2, 1/4 or 1/8 of their size: much
    faster."""
    cache: str = ""
    """Folder that keeps decoded images and masks, so that each file is decoded only once; empty: off."""

    def __post_init__(self) -> None:
        check_fields(self, DATA_RULES, "data")


DATA_RULES = (
    Rule(("rare_crop", "flip"), lambda p: 0 <= p <= 1, "a probability, 0-1"),
    Rule(("resize", "crop"), lambda size: min(size) >= 1, "positive"),
    Rule(("ratio",), lambda ratio: 0 < ratio[0] <= ratio[1], "positive and ascending"),
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimization."""

    steps: int
    """Number of optimizer steps."""
    batch_size: int
    """Images per optimizer step, over all devices and accumulated micro-batches."""
    micro_batch_size: int | None = None
    """Images per forward pass on one device; None: the device's whole share of the batch."""
    lr: float = 6e-5
    """Peak learning rate of the encoder."""
    decoder_lr_factor: float = 10.0
    """Learning rate of the decoder divided by that of the encoder."""
    weight_decay: float = 0.01
    """Weight decay of all weights except those of the encoder's norm layers."""
    warmup_steps: int = 1500
    """Number of steps of linear warm-up."""
    warmup_ratio: float = 1e-6
    """First learning rate of the warm-up divided by the peak."""
    power: float = 1.0
    """Exponent of the polynomial decay to 0."""
    loss_average: Literal["all", "valid"] = "all"
    """Pixels to average the loss over. all: every pixel, as in the released recipes; valid: those with a class."""
    loss: Annotated[str, OneOf("ops.losses.LOSSES")] = "cross_entropy"
    """Loss function."""
    loss_options: tuple[tuple[str, float], ...] = ()
    """Options of the loss as pairs of name and value, such as gamma 3.0."""
    dice: float = 0.0
    """Weight of an added Dice loss (0: off)."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the loss; None: all the same."""
    balanced: bool = False
    """Compute class_weights from the training masks: 1 / sqrt(share of pixels), scaled to a mean of 1."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights, which is evaluated and saved in place of the
    weights; None: off."""
    patience: int | None = None
    """Stop after this many evaluations without a better mIoU; None: never."""
    frozen_stages: int = 0
    """Number of stages of the encoder, counted from the first, whose weights stay as they are."""
    frozen_norm: bool = False
    """Keep the statistics and weights of the decoder's BatchNorm as they are."""
    precision: Precision = "fp32"
    """Number format of the forward pass: fp32, or automatic mixed precision with bf16 or fp16."""
    checkpointing: bool = False
    """Recompute the encoder's activations in the backward pass instead of storing them: less memory, a third slower."""
    compile: bool = False
    """Compile the model with torch.compile: faster steps after minutes of compiling."""
    deterministic: bool = False
    """Use deterministic algorithms only: slower on a GPU; a CPU is deterministic anyway."""
    eval_every: int
    """Steps between evaluations; the last step is always evaluated."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    wandb: str | None = None
    """Project of Weights & Biases to log to as well; None: off."""
    workers: int = 2
    """Number of processes that load data."""
    init_from: str | None = None
    """Weights to start from: any model or encoder that can be loaded; None: random weights."""
    seed: int = 0
    """Seed for initialization, sample order, augmentation and dropout."""

    def __post_init__(self) -> None:
        check_fields(self, TRAIN_RULES, "train")
        if self.class_weights is not None and self.balanced:
            raise UserError("train.class_weights and train.balanced exclude each other; remove one of them")


TRAIN_RULES = (
    Rule(("steps", "batch_size", "eval_every", "log_every"), lambda n: n >= 1, "at least 1"),
    Rule(("lr",), lambda x: x > 0, "positive"),
    Rule(("ema",), optional(lambda p: 0 < p < 1), "between 0 and 1, or None"),
    Rule(("micro_batch_size", "patience"), optional(lambda n: n >= 1), "at least 1 or None"),
    Rule(("frozen_stages", "workers", "seed", "dice", "power", "decoder_lr_factor"), lambda x: x >= 0, "0 or more"),
    Rule(("weight_decay", "warmup_steps", "warmup_ratio"), lambda x: x >= 0, "0 or more"),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that defines a training run."""

    name: str
    """Name of the recipe and of its run folder."""
    description: str
    """Purpose of the recipe, in one line."""
    paper: str = ""
    """Result that the paper reports for it, and the hardware it used."""
    model: ModelConfig
    """Architecture."""
    data: DataConfig
    """Data and augmentation."""
    preprocessing: Preprocessing
    """Preprocessing of images at test time."""
    train: TrainConfig
    """Optimization."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Test protocol."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Contents of config.json in a model folder: everything about a model except its weights."""

    model: ModelConfig
    preprocessing: Preprocessing
    eval: EvalConfig
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    provenance: dict[str, Any]
    """Where the weights come from: recipe, step, scores, versions."""
    license: str
    """License of the weights; "unknown" if nobody named one."""

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes):
            raise UserError(f"palette must have one color per class, {len(self.classes)}, got {len(self.palette)}")

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
            license="unknown",
        )


def default_palette(num_classes: int) -> tuple[Color, ...]:
    """Return colors that are easy to tell apart for the first few dozen classes.

    Class k gets the bits of k + 1, spread over the high bits of red, green and blue (the color map of PASCAL VOC
    without its black).

    >>> default_palette(2)
    ((128, 0, 0), (0, 128, 0))
    """

    def channel(index: int, shift: int) -> int:
        return sum(((index >> (3 * bit + shift)) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(k, 0), channel(k, 1), channel(k, 2)) for k in range(1, num_classes + 1))
