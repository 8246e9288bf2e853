"""Where each head of a Mix Transformer attends: softmax(q k^T / sqrt(d)) of Equation 1, keys reduced as in Equation 2.

The model itself never holds these weights; they are computed again from what goes into each attention layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segformer.errors import UserError
from segformer.models.encoders.mit import EfficientSelfAttention, MixTransformer
from segformer.models.layers import as_map, as_tokens

BAND = 1024  # queries whose weights are held at a time


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of one block, for one query position or averaged over all."""

    stage: int
    block: int
    """Both are counted from 1."""
    weights: Tensor
    """(heads, h, w): on the reduced grid of the keys; each head sums to 1."""


@torch.no_grad()
def attention_maps(encoder: MixTransformer, image: Tensor, position: tuple[int, int] | None = None) -> list[Attention]:
    """Return the attention of every block, for the query over a pixel (row, column), or averaged over all queries.

    ``image``: (1, C, H, W), normalised.  The encoder must be in evaluation mode.
    """
    if position is not None and not (0 <= position[0] < image.shape[2] and 0 <= position[1] < image.shape[3]):
        raise UserError(f"the position must lie in the image of {image.shape[2]} x {image.shape[3]}, got {position}")
    found: list[Tensor] = []

    def keep(layer: Any, inputs: Any, _: Any) -> None:
        tokens, size = inputs
        found.append(layer_attention(layer, tokens, size, scaled(position, image, size)))

    blocks: list[Any] = [stage.blocks for stage in encoder.stages]
    handles = [block.attention.register_forward_hook(keep) for stage in blocks for block in stage]
    try:
        encoder(image)
    finally:
        for handle in handles:
            handle.remove()
    places = [(stage, block) for stage, among in enumerate(blocks, 1) for block in range(1, len(among) + 1)]
    return [Attention(*place, weights) for place, weights in zip(places, found, strict=True)]


def scaled(position: tuple[int, int] | None, image: Tensor, size: tuple[int, int]) -> tuple[int, int] | None:
    """Row and column in a grid of what is over a pixel."""
    if position is None:
        return None
    return position[0] * size[0] // image.shape[2], position[1] * size[1] // image.shape[3]


def layer_attention(
    layer: EfficientSelfAttention, tokens: Tensor, size: tuple[int, int], query: tuple[int, int] | None
) -> Tensor:
    """Attention of one layer for the query at a position of its grid, or averaged.  (1, N, C) -> (heads, h, w)"""
    if query is not None:
        place = query[0] * size[1] + query[1]
        mean = attention_weights(layer, tokens, size, range(place, place + 1))[0, :, 0]
    else:
        num_queries = tokens.shape[1]
        bands = [range(start, min(start + BAND, num_queries)) for start in range(0, num_queries, BAND)]
        mean = torch.stack([attention_weights(layer, tokens, size, band)[0].sum(dim=1) for band in bands]).sum(dim=0)
        mean = mean / num_queries
    return mean.view(layer.num_heads, *reduced_size(layer, size))


def attention_weights(
    layer: EfficientSelfAttention, tokens: Tensor, size: tuple[int, int], queries: Sequence[int]
) -> Tensor:
    """Softmax over the keys for some of the queries.  (B, N, C) -> (B, heads, len(queries), M)"""
    reduced = tokens
    if layer.reduce is not None and layer.norm is not None:
        reduced = layer.norm(as_tokens(layer.reduce(as_map(tokens, size))))
    query = layer.query(tokens[:, list(queries)])
    key = layer.key_value(reduced).chunk(2, dim=-1)[0]
    query, key = (part.unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for part in (query, key))
    scores: Tensor = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
    return scores.softmax(dim=3)


def reduced_size(layer: EfficientSelfAttention, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the grid of keys."""
    reduction = 1 if layer.reduce is None else layer.reduce.kernel_size[0]
    return size[0] // reduction, size[1] // reduction
