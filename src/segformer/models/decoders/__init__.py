"""The table of decoders, with one row for each name that ``model.decoder`` accepts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segformer.config import ModelConfig
from segformer.models.decoders.all_mlp import build_all_mlp
from segformer.models.interfaces import Decoder


@dataclass(frozen=True, kw_only=True)
class DecoderRow:
    """One decoder: the function that builds it, and its description."""

    build: Callable[[Sequence[int], Sequence[int], int, ModelConfig], Decoder]
    """Function that builds the decoder with random weights.

    Its arguments are the encoder's channels, the encoder's strides, the number of logits and the model configuration.
    """
    description: str
    """One line about the decoder's architecture."""


DECODERS: dict[str, DecoderRow] = {
    "all_mlp": DecoderRow(
        build=build_all_mlp, description="SegFormer's decoder, which consists of linear layers (Sec. 3.2)"
    ),
}
