"""The configuration of a model and of a training run: frozen dataclasses of JSON values.

The docstring under a field is the help text of its option on the command line.
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
Output = Literal["mask", "overlay", "polygons", "scores"]  # kinds of files that a prediction is saved as
Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a model.  The number of classes is not part of it."""

    encoder: Annotated[str, OneOf("models.encoders.ENCODERS")]
    """Encoder: the network that turns an image into feature maps."""
    decoder: Annotated[str, OneOf("models.decoders.DECODERS")] = "all_mlp"
    """Decoder: the network that turns the feature maps into logits."""
    decoder_channels: int
    """Number of channels in the decoder (C in the paper)."""
    in_channels: int = 3
    """Number of channels of an input image."""
    binary: bool = False
    """For two classes only: use a single logit, which scores the second class, and binary cross-entropy."""
    drop_path: float = 0.1
    """Stochastic depth rate of the encoder's last block; the rate rises linearly from 0 at the first block."""
    dropout: float = 0.1
    """Probability that a channel of the decoder is set to zero before the classifier; only in training."""
    norm_eps: float = 1e-6
    """Epsilon of the encoder's LayerNorms in the blocks and after each stage."""
    embed_norm_eps: float = 1e-5
    """Epsilon of the encoder's LayerNorms after each patch embedding and each sequence reduction."""
    align_corners: bool = False
    """Align the corner pixels when the logits are upsampled to the size of the image."""

    def __post_init__(self) -> None:
        check_fields(self, MODEL_RULES, "model")


MODEL_RULES = (
    Rule(("decoder_channels", "in_channels"), lambda n: n >= 1, "at least 1"),
    Rule(("drop_path", "dropout"), lambda p: 0 <= p < 1, "0 or more and below 1"),
    Rule(("norm_eps", "embed_norm_eps"), lambda x: x >= 0, "0 or more"),
)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image is turned into the model's input. Training uses pixels, mean and std, but resizes by data.resize."""

    resize: Literal["fit", "squash", "none"] = "fit"
    """Resize rule. fit: keep the aspect ratio; squash: height short_side, width long_side; none: keep the size."""
    long_side: int = 2048
    """Long side of the resized image, in pixels (with fit: at most)."""
    short_side: int = 512
    """Short side of the resized image, in pixels (with fit: at most)."""
    multiple: int = 32
    """After preprocessing.resize, a second resize enlarges each side to the next multiple of this number (1: off)."""
    antialias: bool = False
    """Average neighboring pixels when an image is shrunk; the released models were trained without this."""
    pixels: Pixels = "rgb"
    """Pixel format. rgb: every image is converted to 8-bit RGB; raw: any number of channels and the file's values."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean pixel value of each channel, to be subtracted (for rgb: on the scale from 0 to 255)."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel's pixel values, to divide by (for rgb: on the scale from 0 to 255)."""

    def __post_init__(self) -> None:
        check_fields(self, PREPROCESSING_RULES, "preprocessing")

    @classmethod
    def for_channels(cls, in_channels: int, **options: Any) -> "Preprocessing":
        """Return the preprocessing for a number of channels: rgb for 3 channels, raw for any other number.

        For rgb, mean and std are ImageNet's; for raw, every channel gets the average of ImageNet's three means and the
        average of its three stds.  ``options`` are values for any fields; they take precedence.
        """
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
    """Test protocol: how a mask is computed from a preprocessed image."""

    crop: Size | None = None
    """Height and width of the sliding window, in pixels; None: no window, the whole image is segmented at once."""
    stride: Size | None = None
    """Vertical and horizontal step of the sliding window, in pixels; None: three quarters of eval.crop."""
    blend: Blend = "uniform"
    """Weights in overlaps of windows. uniform: equal, as in the paper; gaussian, cosine: highest in window centers."""
    windows: int = 1
    """Number of windows per batch: a larger number is faster on a GPU but needs more memory."""
    scales: tuple[float, ...] = (1.0,)
    """Scales of the image, as factors on its preprocessed size; the probabilities of all scales are averaged."""
    flip: bool = False
    """Segment the mirrored image as well, at every scale, and average the probabilities."""

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
    """Data set, and the augmentation of training images."""

    dataset: Annotated[str, OneOf("data.sources.SOURCES")] = "folder"
    """Type of the data set."""
    root: str = ""
    """Location of the data set: a folder, or owner/name on the Hugging Face hub (not needed for toytown)."""
    also: tuple[str, ...] = ()
    """Additional data sets with the same classes, written as for --data; splits of the same name are joined."""
    masks: str = ""
    """Folder of the masks if it is not masks/ in data.root; only for the data set type folder."""
    relabel: tuple[tuple[str, str], ...] = ()
    """Pairs (class, new name). Classes with the same new name are merged; a class with the new name "" is ignored."""
    train_split: str = "train"
    """Split to train on."""
    val_split: str = "val"
    """Split to evaluate on."""
    resize: Size = (2048, 512)
    """Largest long side and largest short side of a training image, in pixels, before the factor of data.ratio."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest value of the random factor by which data.resize is multiplied."""
    crop: Size = (512, 512)
    """Height and width of the random crop that is trained on, in pixels."""
    max_class_share: float = 0.75
    """Largest share of a crop's labeled pixels that one class may cover; otherwise another crop is tried (1: off)."""
    rare_crop: float = 0.0
    """Probability of cropping around a pixel of a randomly chosen class, so that rare classes are seen more often."""
    flip: float = 0.5
    """Probability of mirroring an image horizontally."""
    photometric: bool = True
    """Change brightness, contrast, saturation and hue at random."""
    reduced_decode: bool = False
    """Decode JPEGs at 1/2, 1/4 or 1/8 of their size if data.resize and data.ratio need no more pixels: much faster."""
    cache: str = ""
    """Folder in which decoded images and masks are stored, so that each file is decoded only once; empty: off."""

    def __post_init__(self) -> None:
        check_fields(self, DATA_RULES, "data")


DATA_RULES = (
    Rule(("rare_crop", "flip"), lambda p: 0 <= p <= 1, "a probability from 0 to 1"),
    Rule(("resize", "crop"), lambda size: min(size) >= 1, "positive"),
    Rule(("ratio",), lambda ratio: 0 < ratio[0] <= ratio[1], "positive and ascending"),
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimizer, loss, schedule, precision and logging of a training run."""

    steps: int
    """Number of optimizer steps."""
    batch_size: int
    """Number of images per optimizer step, summed over all devices and accumulated micro-batches."""
    micro_batch_size: int | None = None
    """Number of images per forward pass on one device; None: the device's whole share of the batch."""
    lr: float = 6e-5
    """Peak learning rate of the encoder."""
    decoder_lr_factor: float = 10.0
    """Learning rate of the decoder, as a multiple of the encoder's learning rate."""
    weight_decay: float = 0.01
    """Weight decay of all parameters except those of the encoder's norm layers."""
    warmup_steps: int = 1500
    """Number of steps of linear warm-up."""
    warmup_ratio: float = 1e-6
    """Learning rate at the first step of the warm-up, as a fraction of the peak learning rate."""
    power: float = 1.0
    """Exponent of the polynomial by which the learning rate decays to 0 (1: linear)."""
    loss_average: Literal["all", "valid"] = "all"
    """Pixels that the loss is averaged over. all: ignored ones too, as in the released recipes; valid: labeled ones."""
    loss: Annotated[str, OneOf("ops.losses.LOSSES")] = "cross_entropy"
    """Loss function."""
    loss_options: tuple[tuple[str, float], ...] = ()
    """Options of the loss function, each a name and a value, such as gamma 3.0."""
    dice: float = 0.0
    """Weight of the Dice loss that is added to the loss function (0: off)."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the loss; None: the same for all classes."""
    balanced: bool = False
    """Compute class_weights from the training masks: 1 / sqrt(share of pixels), scaled to a mean of 1."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights; best/ then contains the average. None: off."""
    patience: int | None = None
    """Stop after this many evaluations without a better mIoU; None: never."""
    frozen_stages: int = 0
    """Number of encoder stages, from the first one on, whose weights are not trained."""
    frozen_norm: bool = False
    """Freeze the decoder's BatchNorm: neither its statistics nor its weights change."""
    precision: Precision = "fp32"
    """Number format of the forward pass: fp32, or automatic mixed precision with bf16 or fp16."""
    checkpointing: bool = False
    """Recompute the encoder's activations in the backward pass instead of storing them: less memory, a third slower."""
    compile: bool = False
    """Compile the model with torch.compile: the first steps take minutes, later ones are faster."""
    deterministic: bool = False
    """Use only deterministic algorithms, which are slower on a GPU. A CPU is deterministic without this."""
    eval_every: int
    """Number of steps between evaluations; the model is always evaluated after the last step."""
    log_every: int = 10
    """Number of steps between two log entries in metrics.jsonl and TensorBoard."""
    wandb: str | None = None
    """Weights & Biases project to which the run is also logged; None: off."""
    workers: int = 2
    """Number of processes per device that load data."""
    init_from: str | None = None
    """Source of initial weights (model or encoder): model folder, checkpoint file or hub id; None: random weights."""
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
    """A training recipe: all settings of a training run."""

    name: str
    """Name of the recipe, and by default also of its run folder."""
    description: str
    """Purpose of the recipe, in one line."""
    paper: str = ""
    """Result that the paper reports for this recipe, and the paper's hardware; empty if the paper reports none."""
    model: ModelConfig
    """Architecture of the model."""
    data: DataConfig
    """Data set, and the augmentation of training images."""
    preprocessing: Preprocessing
    """Preprocessing of images at test time."""
    train: TrainConfig
    """Optimizer, loss, schedule, precision and logging."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Test protocol."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Contents of config.json in a model folder: the full description of a model without its weights."""

    model: ModelConfig
    preprocessing: Preprocessing
    eval: EvalConfig
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    provenance: dict[str, Any]
    """Origin of the weights, such as recipe, step, scores and versions."""
    license: str
    """License of the weights; "unknown" if none is given."""

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes):
            raise UserError(f"palette must have one color per class ({len(self.classes)}), got {len(self.palette)}")

    @classmethod
    def for_classes(cls, model: ModelConfig, num_classes: int, preprocessing: Preprocessing) -> "ModelCard":
        """Return the card of a model whose classes are named class_0, class_1, ..."""
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

    This is the color map of PASCAL VOC without black.  For class k, the bits of k + 1, lowest first, are dealt to red,
    green and blue in turn; each of the three values is filled from its highest bit down.

    >>> default_palette(2)
    ((128, 0, 0), (0, 128, 0))
    """

    def channel(index: int, shift: int) -> int:
        return sum(((index >> (3 * bit + shift)) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(k, 0), channel(k, 1), channel(k, 2)) for k in range(1, num_classes + 1))
