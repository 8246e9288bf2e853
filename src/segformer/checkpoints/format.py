"""The description of another project's checkpoint format: how to recognize, read and write it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from segformer.checkpoints.key_table import KeyTable, State
from segformer.checkpoints.weight_files import Checkpoint
from segformer.config import Color, ModelCard, Preprocessing
from segformer.errors import UserError
from segformer.published import MIT_SIZES


def classes_in_meta(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the class names in ``meta["CLASSES"]`` of a checkpoint; the tuple is empty if they are unusable."""
    names = checkpoint.meta.get("CLASSES")
    return tuple(str(name).strip() for name in names) if isinstance(names, list | tuple) else ()


def palette_in_meta(checkpoint: Checkpoint) -> tuple[Color, ...]:
    """Return the colors in ``meta["PALETTE"]`` of a checkpoint; the tuple is empty if they are unusable."""
    try:
        return tuple((int(r), int(g), int(b)) for r, g, b in checkpoint.meta.get("PALETTE") or ())
    except (TypeError, ValueError):
        return ()


def default_preprocessing(checkpoint: Checkpoint, in_channels: int) -> Preprocessing:
    """Return the default preprocessing for ``in_channels``; the checkpoint itself is ignored."""
    return Preprocessing.for_channels(in_channels)


def unchanged(state: State) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors unchanged, with an empty list of notes."""
    return dict(state), []


def preprocessing_left_behind(name: str, card: ModelCard) -> list[str]:
    """Return a note with the model's preprocessing, which the format ``name`` cannot store."""
    pixels = card.preprocessing
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (pixels.mean, pixels.std))
    return [
        f"{name} holds no preprocessing; set it yourself: resize {pixels.resize} into {pixels.long_side} x "
        f"{pixels.short_side}, sides to multiples of {pixels.multiple}, mean {mean}, std {std}"
    ]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A checkpoint format that ``load`` can read; ``convert --to`` can write it if ``write`` is not None."""

    tables: tuple[KeyTable, ...]
    """One key table per kind of checkpoint, such as a complete model or only an encoder; writing uses the first one."""
    config_key: str | None = None
    """A key in this format's config.json that our own config.json never has; None: the format has no config.json."""
    prepare: Callable[[State], tuple[dict[str, Tensor], list[str]]] = unchanged
    """Function that changes tensors before they are renamed; returns the tensors and one note for each change."""
    read_classes: Callable[[Checkpoint], tuple[str, ...]] = classes_in_meta
    """Function that finds the class names; they are ignored if their number does not fit the weights."""
    read_palette: Callable[[Checkpoint], tuple[Color, ...]] = palette_in_meta
    """Function that finds the color of each class; the colors are ignored if their number does not fit the weights."""
    read_preprocessing: Callable[[Checkpoint, int], Preprocessing] = default_preprocessing
    """Function that finds the preprocessing, given the checkpoint and the number of image channels."""
    encoders: tuple[str, ...] = tuple(MIT_SIZES)
    """Names of the encoders that the format can store."""
    decoders: tuple[str, ...] = ("all_mlp",)
    """Names of the decoders that the format can store."""
    write: Callable[[State, ModelCard, Path], None] | None = None
    """Function that writes tensors (under our names) and a model card to an existing folder; None: only for reading."""
    left_behind: Callable[[str, ModelCard], list[str]] = preprocessing_left_behind
    """Function that returns notes on what is lost, given the name of the first table and the model card."""

    def check_card(self, card: ModelCard) -> None:
        """Raise a UserError if the format cannot store the encoder or decoder of a model."""
        parts = (("encoder", card.model.encoder, self.encoders), ("decoder", card.model.decoder, self.decoders))
        for kind, name, known in parts:
            if name not in known:
                raise UserError(
                    f"{self.tables[0].name} cannot hold the {kind} {name}, only {', '.join(known)}; "
                    f"convert to segformer instead"
                )

    def losses(self, card: ModelCard) -> list[str]:
        """Return notes on what changes when a model is written: constants, such as eps, and lost information."""
        table = self.tables[0]
        notes = []
        for name in ("norm_eps", "embed_norm_eps"):
            ours, theirs = getattr(card.model, name), getattr(table, name)
            if ours != theirs:
                notes.append(
                    f"{table.name} computes with {name} {theirs:g}, this model with {ours:g}: logits will differ"
                )
        if card.model.align_corners != table.align_corners:
            notes.append(
                f"{table.name} upsamples with align_corners={table.align_corners}, "
                f"this model with {card.model.align_corners}: masks will differ"
            )
        return notes + self.left_behind(table.name, card)
