"""Where each head of an encoder attends: the softmax of Equation 1, over keys on the reduced grid of Equation 2.

A model never holds these weights in memory.  They are computed from the queries and keys of its own attention layers.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segformer.errors import UserError
from segformer.models.encoders.mit import EfficientSelfAttention
from segformer.models.interfaces import Encoder

BAND = 1024  # queries whose weights are held at a time


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of one block, for one query position or averaged over all queries."""

    stage: int
    """Number of the stage, from 1."""
    block: int
    """Number of the block within its stage, from 1."""
    weights: Tensor
    """(heads, h, w), on the reduced grid of the keys; the weights of each head sum to 1."""


@torch.no_grad()
def attention_maps(encoder: Encoder, image: Tensor, position: tuple[int, int] | None = None) -> list[Attention]:
    """Return the attention of every block, for the query over a pixel (row, column), or averaged over all queries.

    ``image``: (1, C, H, W), normalized.  An encoder without efficient self-attention gives none.  Raises a UserError
    for a position outside the image.
    """
    if position is not None and not (0 <= position[0] < image.shape[2] and 0 <= position[1] < image.shape[3]):
        raise UserError(f"the position must lie in the image of {image.shape[2]} x {image.shape[3]}, got {position}")
    frozen = copy.deepcopy(encoder).eval().requires_grad_(False)
    layers = {
        name: layer for name, layer in frozen.named_attention().items() if isinstance(layer, EfficientSelfAttention)
    }
    if not layers:
        return []
    found: dict[Any, Tensor] = {}

    def keep(layer: Any, inputs: Any, _: Any) -> None:
        tokens, size = inputs
        found[layer] = layer_attention(layer, tokens, size, grid_position(position, image, size))

    for layer in layers.values():
        layer.register_forward_hook(keep)
    with torch.enable_grad():  # without it a fused encoder on a CPU computes attention in bands and calls no layer
        frozen(image.to(next(frozen.parameters()).dtype))
    by_stage = [
        [layer for name, layer in layers.items() if name.startswith(f"{stage}.")] for stage in frozen.named_stages()
    ]
    return [
        Attention(stage, block, found[layer])
        for stage, among in enumerate(by_stage, start=1)
        for block, layer in enumerate(among, start=1)
    ]


def grid_position(position: tuple[int, int] | None, image: Tensor, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the row and column of the token grid over a pixel."""
    if position is None:
        return None
    return position[0] * size[0] // image.shape[2], position[1] * size[1] // image.shape[3]


@torch.no_grad()
def layer_attention(
    layer: EfficientSelfAttention, tokens: Tensor, size: tuple[int, int], query: tuple[int, int] | None
) -> Tensor:
    """Return one layer's attention for the query at a grid position, or the mean.  (1, N, C) -> (heads, h, w)"""
    if query is not None:
        index = query[0] * size[1] + query[1]
        mean = attention_weights(layer, tokens, size, range(index, index + 1))[0, :, 0]
    else:
        num_queries = tokens.shape[1]
        bands = [range(start, min(start + BAND, num_queries)) for start in range(0, num_queries, BAND)]
        mean = torch.stack([attention_weights(layer, tokens, size, band)[0].sum(dim=1) for band in bands]).sum(dim=0)
        mean = mean / num_queries
    return mean.view(layer.num_heads, size[0] // layer.reduction, size[1] // layer.reduction)


def attention_weights(
    layer: EfficientSelfAttention, tokens: Tensor, size: tuple[int, int], queries: Sequence[int]
) -> Tensor:
    """Return the softmax over the keys for some of the queries.  (B, N, C) -> (B, heads, len(queries), M)"""
    query = layer.heads(layer.query(tokens[:, list(queries)]))
    key, _ = layer.keys_and_values(tokens, size)
    scores: Tensor = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
    return scores.softmax(dim=3)
