"""The table of encoders: one row for each name that ``model.encoder`` accepts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from segformer.config import ModelConfig
from segformer.models.encoders.mit import build_mit
from segformer.models.interfaces import Encoder
from segformer.published import MIT_SIZES


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """One encoder."""

    build: Callable[[ModelConfig], Encoder]
    """Builds it with random weights."""
    decoder_channels: int
    """Width of its decoder by default."""


ENCODERS: dict[str, EncoderRow] = {
    **{
        name: EncoderRow(build=partial(build_mit, size), decoder_channels=size.decoder_channels)
        for name, size in MIT_SIZES.items()
    },
}
