"""What a checkpoint format of another project is: how it is recognized, read and written."""

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
    """Return the class names that a file keeps as ``meta["CLASSES"]``; none where it keeps nothing usable."""
    names = checkpoint.meta.get("CLASSES")
    return tuple(str(name).strip() for name in names) if isinstance(names, list | tuple) else ()


def palette_in_meta(checkpoint: Checkpoint) -> tuple[Color, ...]:
    """Return the colors that a file keeps as ``meta["PALETTE"]``; none where it keeps nothing usable."""
    try:
        return tuple((int(r), int(g), int(b)) for r, g, b in checkpoint.meta.get("PALETTE") or ())
    except (TypeError, ValueError):
        return ()


def default_preprocessing(checkpoint: Checkpoint, in_channels: int) -> Preprocessing:
    """Return the default for a number of channels, whatever the checkpoint holds."""
    return Preprocessing.for_channels(in_channels)


def unchanged(state: State) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors as they are, without a note."""
    return dict(state), []


def preprocessing_left_behind(name: str, card: ModelCard) -> list[str]:
    """Report the preprocessing, which the format ``name`` cannot hold, so that it can be set by hand."""
    pixels = card.preprocessing
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (pixels.mean, pixels.std))
    return [
        f"{name} holds no preprocessing; this model's is: resize {pixels.resize} into {pixels.long_side} x "
        f"{pixels.short_side}, sides to multiples of {pixels.multiple}, mean {mean}, std {std}"
    ]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A checkpoint format that ``load`` reads and, if it has ``write``, that ``convert --to`` writes."""

    tables: tuple[KeyTable, ...]
    """Its kinds of checkpoints, such as whole model and encoder alone; models are written by the first table."""
    config_key: str | None = None
    """A key that tells its config.json from that of a model folder; None: it has no config.json."""
    prepare: Callable[[State], tuple[dict[str, Tensor], list[str]]] = unchanged
    """Changes tensors before they are renamed; returns them with a note for each change."""
    read_classes: Callable[[Checkpoint], tuple[str, ...]] = classes_in_meta
    """Finds the class names; a number of names that does not fit the weights is ignored."""
    read_palette: Callable[[Checkpoint], tuple[Color, ...]] = palette_in_meta
    """Finds the color of each class; a number of colors that does not fit the weights is ignored."""
    read_preprocessing: Callable[[Checkpoint, int], Preprocessing] = default_preprocessing
    """Finds the preprocessing for images with a number of channels."""
    encoders: tuple[str, ...] = tuple(MIT_SIZES)
    """Encoders that it can hold."""
    decoders: tuple[str, ...] = ("all_mlp",)
    """Decoders that it can hold."""
    write: Callable[[State, ModelCard, Path], None] | None = None
    """Writes tensors under our names and the card's contents into an existing folder; None: it is only read."""
    left_behind: Callable[[str, ModelCard], list[str]] = preprocessing_left_behind
    """Reports what of a card it cannot hold; called with the name of its first table."""

    def check_card(self, card: ModelCard) -> None:
        """Raise a UserError where the format cannot hold a model's encoder or decoder."""
        parts = (("encoder", card.model.encoder, self.encoders), ("decoder", card.model.decoder, self.decoders))
        for kind, name, known in parts:
            if name not in known:
                raise UserError(
                    f"{self.tables[0].name} cannot hold the {kind} {name}, only {', '.join(known)}; "
                    f"convert to segformer instead"
                )

    def losses(self, card: ModelCard) -> list[str]:
        """List what writing a model loses: constants that the other project computes with, and what it cannot hold."""
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
