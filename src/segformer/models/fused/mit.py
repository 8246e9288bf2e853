"""Inference form of MiT: on a CPU each block is computed in bands of rows, so that a band fits into the cache.

For an image of 1024 x 2048 the hidden map of a Mix-FFN takes 64 MiB.  Allocating, writing and reading such a map
takes longer than computing the layers.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.models.encoders.mit import Block, EfficientSelfAttention, MixFFN, MixTransformer, Stage
from segformer.models.fused.onednn import BAND, is_eager_on_cpu, quick_gelu_of_depthwise, quick_linear
from segformer.models.layers import as_map, as_tokens, sharing_copy

WHOLE = 3 * BAND  # bytes of the largest map that is not divided into bands


def fuse_mit(encoder: MixTransformer) -> MixTransformer:
    """Return the inference form of an encoder: a copy in evaluation mode that shares the parameters."""
    fused = sharing_copy(encoder).eval()
    for stage in fused.modules():
        if isinstance(stage, Stage):
            stage.blocks = nn.ModuleList(BandedBlock(cast("Block", block)) for block in stage.blocks)
            stage.recompute = False
    return fused


class BandedBlock(nn.Module):
    """A block that is computed in bands of rows for inference on a CPU, and as a whole otherwise.  (B, N, C)"""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the block; ``size`` is the (height, width) of the token grid."""
        if is_eager_on_cpu(tokens):
            return block_by_bands(self.block, tokens, size)
        return self.block(tokens, size)  # type: ignore[no-any-return]  # nn.Module is untyped


def block_by_bands(block: Block, tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute a block in evaluation mode in bands of rows; only rounding differs from ``block`` itself.  (B, N, C)"""
    maps = tokens.view(tokens.shape[0], *size, -1)
    attended = torch.empty_like(maps)
    result = torch.empty_like(maps)
    for k in range(len(maps)):
        _attend(maps[k], block.norm1, block.attention, attended[k])
        _mix(attended[k], block.norm2, block.ffn, result[k])
    return result.view(tokens.shape)


def bands(height: int, row: int, multiple: int = 1) -> list[slice]:
    """Divide a map into bands of rows of about the same height, and return the slice of rows of each band.

    A row takes ``row`` bytes.  The height of every band except the last is a multiple of ``multiple``.
    """
    number = 1 if height * row <= WHOLE else -(-height * row // BAND)
    step = -(-height // (number * multiple)) * multiple
    return [slice(start, min(start + step, height)) for start in range(0, height, step)]


def _attend(tokens: Tensor, norm: nn.LayerNorm, attention: EfficientSelfAttention, result: Tensor) -> None:
    """Add the tokens and the attention of the normalized tokens, and write the sum into ``result``.  (h, w, C)"""
    height, width, channels = tokens.shape
    reduction = attention.reduction
    divided = bands(height, width * channels * tokens.element_size(), reduction)
    normed = [norm(tokens[band]).view(1, -1, channels) for band in divided]
    sizes = [(band.stop - band.start, width) for band in divided]
    reduced = [attention.reduced(rows, size) for rows, size in zip(normed, sizes, strict=True) if size[0] >= reduction]
    key, value = map(attention.heads, _layer(torch.cat(reduced, dim=1), attention.key_value).chunk(2, dim=-1))
    for band, rows in zip(divided, normed, strict=True):
        query = attention.heads(_layer(rows, attention.query))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        torch.add(tokens[band], _layer(attended, attention.output).view(-1, width, channels), out=result[band])


def _mix(tokens: Tensor, norm: nn.LayerNorm, ffn: MixFFN, result: Tensor) -> None:
    """Add the tokens and the Mix-FFN of the normalized tokens, and write the sum into ``result``.  (h, w, C)

    The 3x3 convolution of the Mix-FFN needs one more row above and below each band.
    """
    height, width, channels = tokens.shape
    for band in bands(height, width * ffn.expand.out_features * tokens.element_size()):
        around = slice(max(band.start - 1, 0), min(band.stop + 1, height))
        hidden = _layer(norm(tokens[around]).view(1, -1, channels), ffn.expand)
        active = as_tokens(quick_gelu_of_depthwise(as_map(hidden, (around.stop - around.start, width)), ffn.depthwise))
        first = (band.start - around.start) * width
        active = active[:, first : first + (band.stop - band.start) * width]
        torch.add(tokens[band], _layer(active, ffn.contract).view(-1, width, channels), out=result[band])


def _layer(tokens: Tensor, linear: nn.Linear) -> Tensor:
    """Apply a linear layer, with oneDNN if possible; an adapter or quantized layer in its place is called as usual."""
    return quick_linear(tokens, linear.weight, linear.bias) if type(linear) is nn.Linear else linear(tokens)
