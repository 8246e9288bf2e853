"""The decoders by name, one row each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segformer.config import ModelConfig
from segformer.models.decoders.all_mlp import build_all_mlp
from segformer.models.interfaces import Decoder


@dataclass(frozen=True, kw_only=True)
class DecoderRow:
    """A decoder that ``model.decoder`` can name."""

    build: Callable[[Sequence[int], Sequence[int], int, ModelConfig], Decoder]
    """Makes it from the encoder's channels and strides, the number of logits and the configuration."""
    description: str
    """One line: what it is."""


DECODERS: dict[str, DecoderRow] = {
    "all_mlp": DecoderRow(build=build_all_mlp, description="SegFormer's decoder of linear layers alone (Sec. 3.2)"),
}
