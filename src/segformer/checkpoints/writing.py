"""Models written in other projects' layouts, so that those projects load them."""

import io
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save as serialize

from segformer.checkpoints.formats import nvlabs, smp, transformers
from segformer.checkpoints.key_table import Layout, State, write
from segformer.config import ModelCard
from segformer.files import write_bytes, write_json


def write_transformers(state: State, card: ModelCard, folder: Path) -> None:
    """Write what ``SegformerForSemanticSegmentation.from_pretrained`` reads."""
    write_json(folder / "config.json", transformers.write_config(card))
    write_json(folder / "preprocessor_config.json", transformers.write_preprocessing(card.preprocessing))
    write_bytes(folder / "model.safetensors", serialize(write(transformers.TRANSFORMERS, state), {"format": "pt"}))


def write_smp(state: State, card: ModelCard, folder: Path) -> None:
    """Write what ``segmentation_models_pytorch.from_pretrained`` reads."""
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
    write_bytes(folder / "model.safetensors", serialize(write(smp.SMP, state), {"format": "pt"}))


def write_nvlabs(state: State, card: ModelCard, folder: Path) -> None:
    """Write ``model.pth``: {"meta": {CLASSES, PALETTE}, "state_dict"} with exactly the keys of the release."""
    meta = {"CLASSES": list(card.classes), "PALETTE": [list(color) for color in card.palette]}
    buffer = io.BytesIO()
    torch.save({"meta": meta, "state_dict": nvlabs.write_nvlabs(state, len(card.classes))}, buffer)
    write_bytes(folder / "model.pth", buffer.getvalue())


WRITERS: dict[str, tuple[Layout, Callable[[State, ModelCard, Path], None]]] = {
    "hf": (transformers.TRANSFORMERS, write_transformers),
    "smp": (smp.SMP, write_smp),
    "nvlabs": (nvlabs.NVLABS, write_nvlabs),
}


def losses(layout: Layout, card: ModelCard) -> list[str]:
    """Say what a target can not hold of a model, so that its results will differ there."""
    notes = []
    for name in ("norm_eps", "embed_norm_eps"):
        ours, theirs = getattr(card.model, name), getattr(layout, name)
        if ours != theirs:
            notes.append(f"{layout.name} computes with {name} {theirs:g}, this model with {ours:g}: logits will differ")
    if card.model.align_corners != layout.align_corners:
        notes.append(
            f"{layout.name} upsamples with align_corners={layout.align_corners}, "
            f"this model with {card.model.align_corners}: masks will differ"
        )
    if layout is transformers.TRANSFORMERS and card.preprocessing.resize != "squash":
        notes.append(f"{layout.name} squashes images to one size, this model keeps their aspect: resize them yourself")
    return notes


def left_behind(layout: Layout, card: ModelCard) -> list[str]:
    """Say what a target has no place for, with the values, so that a user can set them there by hand."""
    if layout is transformers.TRANSFORMERS:
        return []
    notes = [f"{layout.name} holds no class names and no palette"] if layout is smp.SMP else []
    pixels = card.preprocessing
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (pixels.mean, pixels.std))
    return [
        *notes,
        f"{layout.name} holds no preprocessing; this model's is: resize {pixels.resize} into {pixels.long_side} x "
        f"{pixels.short_side}, sides to multiples of {pixels.multiple}, mean {mean}, std {std}",
    ]
