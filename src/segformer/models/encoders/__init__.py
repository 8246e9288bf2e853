"""The table of encoders, with one row for each name that ``model.encoder`` accepts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from segformer.config import ModelConfig
from segformer.models.encoders.mit import build_mit
from segformer.models.interfaces import Encoder
from segformer.published import MIT_SIZES


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """One encoder: the function that builds it, and the default width of its decoder."""

    build: Callable[[ModelConfig], Encoder]
    """Function that builds the encoder with random weights from the model configuration."""
    description: str
    """One line that says which network it is."""
    decoder_channels: int
    """Default of ``model.decoder_channels`` for this encoder."""


ENCODERS: dict[str, EncoderRow] = {
    **{
        name: EncoderRow(
            build=partial(build_mit, size),
            description=f"Mix Transformer {name[-2:].upper()}, {sum(size.depths)} blocks (Sec. 3.1)",
            decoder_channels=size.decoder_channels,
        )
        for name, size in MIT_SIZES.items()
    },
}
