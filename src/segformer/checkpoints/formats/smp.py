"""The format of segmentation-models-pytorch: NVlabs' encoder names; decoder names count stages from the last."""

from pathlib import Path

from safetensors.torch import save as serialize

from segformer.checkpoints.format import Format, preprocessing_left_behind
from segformer.checkpoints.formats.nvlabs import ENCODER_ROWS
from segformer.checkpoints.key_table import KeyTable, Row, State, with_prefix, write
from segformer.config import ModelCard
from segformer.files import write_bytes, write_json

TABLE = KeyTable(
    name="segmentation-models-pytorch",
    rows=(
        *with_prefix(ENCODER_ROWS, "encoder."),
        Row("decoder.projections.{i}", "decoder.mlp_stage.{R}.linear"),
        Row("decoder.fuse", "decoder.fuse_stage.0", as_convolution=True),
        Row("decoder.norm", "decoder.fuse_stage.1"),
        Row("decoder.classifier", "segmentation_head.0"),
    ),
    signature=("encoder.patch_embed1.proj.weight", "decoder.mlp_stage.0.linear.weight", "segmentation_head.0.weight"),
    align_corners=True,
)


def write_smp(state: State, card: ModelCard, folder: Path) -> None:
    """Write config.json and model.safetensors for ``segmentation_models_pytorch.from_pretrained``."""
    config = {
        "_model_class": "Segformer",
        "encoder_name": card.model.encoder,
        "encoder_depth": 5,
        "encoder_weights": None,
        "decoder_segmentation_channels": card.model.decoder_channels,
        "in_channels": card.model.in_channels,
        "classes": len(card.classes),
        "activation": None,
        "upsampling": 4,
        "aux_params": None,
    }
    write_json(folder / "config.json", config)
    write_bytes(folder / "model.safetensors", serialize(write(TABLE, state), {"format": "pt"}))


def left_behind(name: str, card: ModelCard) -> list[str]:
    """Return notes on the parts of a model card that the files cannot store: classes, palette and preprocessing."""
    return [f"{name} holds no class names and no palette", *preprocessing_left_behind(name, card)]


SMP = Format(tables=(TABLE,), config_key="encoder_name", write=write_smp, left_behind=left_behind)
