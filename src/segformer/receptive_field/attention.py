"""Attention weights of each head of an encoder: the softmax of Equation 1, over keys on the reduced grid of Equation 2.

The model itself never stores these weights.  They are computed here from the queries and keys of its attention layers.
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

BAND = 1024  # number of queries whose weights are in memory at a time


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of one block, for one query position or averaged over all queries."""

    stage: int
    """Number of the stage, counted from 1."""
    block: int
    """Number of the block within its stage, counted from 1."""
    weights: Tensor
    """Weights on the reduced grid of the keys; the weights of each head sum to 1.  (heads, h, w)"""


@torch.no_grad()
def attention_maps(encoder: Encoder, image: Tensor, position: tuple[int, int] | None = None) -> list[Attention]:
    """Return the attention of every block, for one query or averaged over all queries.

    ``image`` is normalized, (1, C, H, W).  ``position`` is a pixel (row, column) and selects the query at this pixel;
    None averages over all queries.  The list is empty if the encoder has no efficient self-attention.  Raises a
    UserError if the position is outside the image.
    """
    if position is not None and not (0 <= position[0] < image.shape[2] and 0 <= position[1] < image.shape[3]):
        raise UserError(f"the position must be inside the image of {image.shape[2]} x {image.shape[3]}, got {position}")
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
    with torch.enable_grad():  # otherwise a fused encoder on a CPU attends in bands and never calls the hooks
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
    """Return the row and column of the token at a pixel, given the size of the token grid; None without a pixel."""
    if position is None:
        return None
    return position[0] * size[0] // image.shape[2], position[1] * size[1] // image.shape[3]


@torch.no_grad()
def layer_attention(
    layer: EfficientSelfAttention, tokens: Tensor, size: tuple[int, int], query: tuple[int, int] | None
) -> Tensor:
    """Return one layer's attention for the query at (row, column), or averaged over all queries if ``query`` is None.

    The N tokens are the queries, and the h x w reduced tokens are the keys.  (1, N, C) -> (heads, h, w)
    """
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
    """Return the attention weights of the given queries over all keys.

    ``queries`` are indices of the N tokens; M is the number of keys.  (B, N, C) -> (B, heads, len(queries), M)
    """
    query = layer.heads(layer.query(tokens[:, list(queries)]))
    key, _ = layer.keys_and_values(tokens, size)
    scores: Tensor = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
    return scores.softmax(dim=3)
