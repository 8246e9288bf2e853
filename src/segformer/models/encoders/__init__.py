"""The encoders by name, one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from segformer.config import ModelConfig
from segformer.models.encoders.mit import build_mit
from segformer.models.interfaces import Encoder
from segformer.published import MIT_SIZES


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """An encoder that ``model.encoder`` can name."""

    build: Callable[[ModelConfig], Encoder]
    """Makes it with random weights."""
    decoder_channels: int
    """Width of the decoder that goes with it, where nobody says another."""


ENCODERS: dict[str, EncoderRow] = {
    name: EncoderRow(build=partial(build_mit, size), decoder_channels=size.decoder_channels)
    for name, size in MIT_SIZES.items()
}
