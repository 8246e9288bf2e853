"""The format of transformers, with two sets of tensor names.

Files on the hub use one set.  The models that transformers 5.23 or later builds in memory use the other.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialize

from segformer.checkpoints.format import Format, classes_in_meta
from segformer.checkpoints.key_table import KeyTable, Row, State, with_prefix, write
from segformer.checkpoints.weight_files import Checkpoint
from segformer.config import ModelCard, Preprocessing
from segformer.errors import UserError
from segformer.files import write_bytes, write_json
from segformer.models.encoders.mit import MLP_RATIO, NUM_HEADS, PATCHES, REDUCTIONS
from segformer.published import MIT_SIZES

EPS = 1e-5  # eps of every LayerNorm; transformers ignores layer_norm_eps in its config
HUB_BLOCK, BLOCK = "encoder.block.{i}.{j}.", "stages.{i}.blocks.{j}."
OURS = "encoder.stages.{i}.blocks.{j}."
HUB_ENCODER = (
    Row("encoder.stages.{i}.embed.project", "encoder.patch_embeddings.{i}.proj"),
    Row("encoder.stages.{i}.embed.norm", "encoder.patch_embeddings.{i}.layer_norm"),
    Row(OURS + "norm1", HUB_BLOCK + "layer_norm_1"),
    Row(OURS + "attention.query", HUB_BLOCK + "attention.self.query"),
    Row(OURS + "attention.key_value", (HUB_BLOCK + "attention.self.key", HUB_BLOCK + "attention.self.value")),
    Row(OURS + "attention.output", HUB_BLOCK + "attention.output.dense"),
    Row(OURS + "attention.reduce", HUB_BLOCK + "attention.self.sr"),
    Row(OURS + "attention.norm", HUB_BLOCK + "attention.self.layer_norm"),
    Row(OURS + "norm2", HUB_BLOCK + "layer_norm_2"),
    Row(OURS + "ffn.expand", HUB_BLOCK + "mlp.dense1"),
    Row(OURS + "ffn.depthwise", HUB_BLOCK + "mlp.dwconv.dwconv"),
    Row(OURS + "ffn.contract", HUB_BLOCK + "mlp.dense2"),
    Row("encoder.stages.{i}.norm", "encoder.layer_norm.{i}"),
)
MEMORY_ENCODER = (
    Row("encoder.stages.{i}.embed.project", "stages.{i}.patch_embeddings.proj"),
    Row("encoder.stages.{i}.embed.norm", "stages.{i}.patch_embeddings.layer_norm"),
    Row(OURS + "norm1", BLOCK + "layernorm_before"),
    Row(OURS + "attention.query", BLOCK + "attention.q_proj"),
    Row(OURS + "attention.key_value", (BLOCK + "attention.k_proj", BLOCK + "attention.v_proj")),
    Row(OURS + "attention.output", BLOCK + "attention.o_proj"),
    Row(OURS + "attention.reduce", BLOCK + "attention.sequence_reduction.sequence_reduction"),
    Row(OURS + "attention.norm", BLOCK + "attention.sequence_reduction.layer_norm"),
    Row(OURS + "norm2", BLOCK + "layernorm_after"),
    Row(OURS + "ffn.expand", BLOCK + "mlp.fc1"),
    Row(OURS + "ffn.depthwise", BLOCK + "mlp.dwconv.dwconv"),
    Row(OURS + "ffn.contract", BLOCK + "mlp.fc2"),
    Row("encoder.stages.{i}.norm", "stages.{i}.layer_norm"),
)


def _decoder(projections: str) -> tuple[Row, ...]:
    return (
        Row("decoder.projections.{i}", f"decode_head.{projections}.{{i}}.proj"),
        Row("decoder.fuse", "decode_head.linear_fuse", as_convolution=True),
        Row("decoder.norm", "decode_head.batch_norm"),
        Row("decoder.classifier", "decode_head.classifier"),
    )


def _table(kind: str, encoder: Sequence[Row], decoder: Sequence[Row], prefix: str = "segformer.") -> KeyTable:
    """Return a key table; its signature is the first encoder tensor and, with a decoder, the fusion layer's weight."""
    signature = [f"{prefix}{encoder[0].their_names[0].format(i=0)}.weight"]
    signature += ["decode_head.linear_fuse.weight"] if decoder else []
    return KeyTable(
        name=f"transformers ({kind})",
        rows=(*with_prefix(encoder, prefix), *decoder),
        signature=tuple(signature),
        dropped={} if decoder else {r"classifier\.(weight|bias)": "the classifier of whole images"},
        norm_eps=EPS,
        embed_norm_eps=EPS,
    )


SEGMENTATION = _table("segmentation", HUB_ENCODER, _decoder("linear_c"))


def read_classes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the class names in ``id2label`` of the config, in the order of their ids.

    Without a usable ``id2label``, returns the names in the checkpoint's ``meta``, if there are any.
    """
    labels = checkpoint.config.get("id2label")
    if not isinstance(labels, dict) or not all(str(key).isdigit() for key in labels):
        return classes_in_meta(checkpoint)
    return tuple(str(labels[key]).strip() for key in sorted(labels, key=int))


def read_preprocessing(checkpoint: Checkpoint, in_channels: int) -> Preprocessing:
    """Return the preprocessing in preprocessor_config.json, or the default if there is no such file.

    Raises a UserError that names the file and the field if a value is invalid.
    """
    if not checkpoint.preprocessor:
        return Preprocessing.for_channels(in_channels)
    try:
        return translate_preprocessing(checkpoint.preprocessor, in_channels)
    except UserError as error:
        raise UserError(f"{checkpoint.path / 'preprocessor_config.json'}: {error}") from error


def translate_preprocessing(values: Any, in_channels: int) -> Preprocessing:
    """Convert the contents of a preprocessor_config.json to our preprocessing, with antialiasing as in transformers."""
    if not isinstance(values, dict):
        raise UserError(f"expected a JSON object, got {values!r}")
    options: dict[str, Any] = {"resize": "none"}
    if values.get("do_resize", True):
        options = _resize(values.get("size", 512))
    scale = _scale(values)
    if not values.get("do_normalize", True):
        options |= {"mean": (0.0,) * in_channels, "std": (scale,) * in_channels}
    elif "image_mean" in values and "image_std" in values:
        for name in ("mean", "std"):
            given = values[f"image_{name}"]
            if not isinstance(given, list) or len(given) != in_channels or not all(map(_is_number, given)):
                raise UserError(f"image_{name} must be {in_channels} numbers, one for each channel, got {given!r}")
            options[name] = tuple(float(value) * scale for value in given)
    return Preprocessing.for_channels(in_channels, multiple=1, antialias=True, **options)


def _scale(values: dict[str, Any]) -> float:
    """Return the raw pixel value that rescaling maps to 1, such as 255; it is 1 if there is no rescaling.

    image_mean and image_std refer to rescaled pixels; multiplied by this value they refer to raw pixel values.
    """
    if not values.get("do_rescale", True):
        return 1.0
    factor = values.get("rescale_factor", 1 / 255)
    if not _is_number(factor) or factor <= 0:
        raise UserError(f"rescale_factor must be a positive number, got {factor!r}")
    return 1.0 / float(factor)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _resize(size: Any) -> dict[str, Any]:
    """Convert a size (int, {"height", "width"} or {"shortest_edge", "longest_edge"}) to resize options."""
    sides = size if isinstance(size, dict) else {"height": size, "width": size}
    if not all(type(side) is int and side > 0 for side in sides.values()):
        raise UserError(f"size must contain only positive whole numbers, got {size!r}")
    if "shortest_edge" in sides:
        long_side = sides.get("longest_edge", 1 << 20)
        return {"resize": "fit", "short_side": sides["shortest_edge"], "long_side": long_side}
    if {"height", "width"} <= sides.keys():
        return {"resize": "squash", "short_side": sides["height"], "long_side": sides["width"]}
    raise UserError(f'size must have "height" and "width", or "shortest_edge", got {size!r}')


def write_transformers(state: State, card: ModelCard, folder: Path) -> None:
    """Write the config.json, preprocessor_config.json and model.safetensors that transformers reads."""
    write_json(folder / "config.json", config_json(card))
    write_json(folder / "preprocessor_config.json", preprocessor_json(card.preprocessing))
    write_bytes(folder / "model.safetensors", serialize(write(SEGMENTATION, state), {"format": "pt"}))


def config_json(card: ModelCard) -> dict[str, Any]:
    """Return the contents of the config.json that transformers reads."""
    size = MIT_SIZES[card.model.encoder]
    return {
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "num_channels": card.model.in_channels,
        "num_encoder_blocks": 4,
        "depths": size.depths,
        "hidden_sizes": size.channels,
        "num_attention_heads": NUM_HEADS,
        "sr_ratios": REDUCTIONS,
        "mlp_ratios": (MLP_RATIO,) * 4,
        "patch_sizes": [kernel for kernel, _ in PATCHES],
        "strides": [stride for _, stride in PATCHES],
        "hidden_act": "gelu",
        "drop_path_rate": card.model.drop_path,
        "classifier_dropout_prob": card.model.dropout,
        "decoder_hidden_size": card.model.decoder_channels,
        "semantic_loss_ignore_index": 255,
        "id2label": {str(index): name for index, name in enumerate(card.classes)},
        "label2id": {name: index for index, name in enumerate(card.classes)},
    }


def preprocessor_json(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the contents of a preprocessor_config.json that matches the preprocessing as closely as possible."""
    width = preprocessing.long_side if preprocessing.resize == "squash" else preprocessing.short_side
    return {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": preprocessing.resize != "none",
        "size": {"height": preprocessing.short_side, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in preprocessing.mean],
        "image_std": [value / 255 for value in preprocessing.std],
        "do_reduce_labels": False,
    }


def left_behind(name: str, card: ModelCard) -> list[str]:
    """Return a list with one note if transformers cannot resize images as the model does; otherwise it is empty."""
    if card.preprocessing.resize == "squash":
        return []
    return [f"{name} squashes images to one size, this model keeps their aspect ratio: resize them yourself"]


TRANSFORMERS = Format(
    tables=(
        SEGMENTATION,
        _table("segmentation, in memory", MEMORY_ENCODER, _decoder("linear_projections")),
        _table("encoder", HUB_ENCODER, ()),
        _table("encoder, in memory", MEMORY_ENCODER, ()),
        _table("bare encoder", HUB_ENCODER, (), prefix=""),
        _table("bare encoder, in memory", MEMORY_ENCODER, (), prefix=""),
    ),
    config_key="model_type",
    read_classes=read_classes,
    read_preprocessing=read_preprocessing,
    write=write_transformers,
    left_behind=left_behind,
)
