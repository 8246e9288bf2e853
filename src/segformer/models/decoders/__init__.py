"""The table of decoders: one row for each name that ``model.decoder`` accepts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segformer.config import ModelConfig
from segformer.models.decoders.all_mlp import build_all_mlp
from segformer.models.interfaces import Decoder


@dataclass(frozen=True, kw_only=True)
class DecoderRow:
    """One decoder."""

    build: Callable[[Sequence[int], Sequence[int], int, ModelConfig], Decoder]
    """Builds it with random weights from the encoder's channels and strides, the number of logits and the config."""
    description: str
    """One line about its architecture."""


DECODERS: dict[str, DecoderRow] = {
    "all_mlp": DecoderRow(
        build=build_all_mlp, description="SegFormer's decoder, which consists of linear layers (Sec. 3.2)"
    ),
}
