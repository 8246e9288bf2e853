"""Mix Transformer encoders MiT-B0 ... B5 (Sec. 3.1 and the appendix's Table 6)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segformer.models.encoders.bands import block_by_bands
from segformer.models.layers import as_map, as_tokens, is_eager_on_cpu, linear_of_gelu, sharing_copy

NUM_HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # per side; the paper's R is the square: 64, 16, 4, 1
PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))  # (kernel K, stride S); the padding P is K // 2
MLP_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class MiTSize:
    """Embedding dimensions and numbers of blocks of the four stages."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


MIT_SIZES = {
    "mit_b0": MiTSize(channels=(32, 64, 160, 256), depths=(2, 2, 2, 2)),
    "mit_b1": MiTSize(channels=(64, 128, 320, 512), depths=(2, 2, 2, 2)),
    "mit_b2": MiTSize(channels=(64, 128, 320, 512), depths=(3, 4, 6, 3)),
    "mit_b3": MiTSize(channels=(64, 128, 320, 512), depths=(3, 4, 18, 3)),
    "mit_b4": MiTSize(channels=(64, 128, 320, 512), depths=(3, 8, 27, 3)),
    "mit_b5": MiTSize(channels=(64, 128, 320, 512), depths=(3, 6, 40, 3)),
}


class OverlapPatchEmbed(nn.Module):
    """Merge overlapping patches into tokens (Sec. 3.1).  (B, C_in, H, W) -> (B, H/S * W/S, C)"""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens and the (height, width) of their grid."""
        patches = self.project(features)
        return self.norm(as_tokens(patches)), (patches.shape[2], patches.shape[3])


class EfficientSelfAttention(nn.Module):
    """Attend over all positions with keys and values on a grid reduced by R (Eq. 1 and 2).  (B, N, C) -> (B, N, C)"""

    def __init__(self, channels: int, num_heads: int, reduction: int, eps: float) -> None:
        super().__init__()
        self.num_heads, self.reduction = num_heads, reduction
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        # Kernel = stride: the reshape and linear of Eq. 2, as one convolution over patches that do not overlap.
        self.reduce = nn.Conv2d(channels, channels, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(channels, eps=eps) if reduction > 1 else None

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """``size`` is the (height, width) of the token grid."""
        query = self.heads(self.query(tokens))
        key, value = map(self.heads, self.key_value(self.reduced(tokens, size)).chunk(2, dim=-1))
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module is untyped

    def reduced(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """What keys and values are made of.  (B, N, C) -> (B, N / R, C)"""
        if self.reduce is None or self.norm is None:
            return tokens
        return self.norm(as_tokens(self.reduce(as_map(tokens, size))))  # type: ignore[no-any-return]

    def heads(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads)"""
        return tokens.view(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)


class MixFFN(nn.Module):
    """Feed-forward layer whose 3x3 convolution leaks position from the zero padding (Eq. 3).  (B, N, C) -> (B, N, C)"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = MLP_RATIO * channels
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """``size`` is the (height, width) of the token grid."""
        hidden = self.depthwise(as_map(self.expand(tokens), size))
        return linear_of_gelu(as_tokens(hidden), self.contract)


class StochasticDepth(nn.Module):
    """Drop a residual branch for whole samples while training, at the given rate.  (B, N, C) -> (B, N, C)"""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Kept samples are scaled up so that the expectation stays the same."""
        if not self.training or self.rate == 0.0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.rate
        return branch * (kept.to(branch.dtype) / (1.0 - self.rate))


class Block(nn.Module):
    """Pre-norm residual block: efficient self-attention, then Mix-FFN.  (B, N, C) -> (B, N, C)"""

    def __init__(
        self, channels: int, num_heads: int, reduction: int, *, drop_path: float, norm_eps: float, embed_norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=norm_eps)
        self.attention = EfficientSelfAttention(channels, num_heads, reduction, embed_norm_eps)
        self.norm2 = nn.LayerNorm(channels, eps=norm_eps)
        self.ffn = MixFFN(channels)
        self.drop_path = StochasticDepth(drop_path)
        self.by_bands = False
        """Whether a CPU computes some rows at a time, for inference."""

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """``size`` is the (height, width) of the token grid."""
        if self.by_bands and is_eager_on_cpu(tokens):
            return block_by_bands(self, tokens, size)
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens), size))
        return tokens + self.drop_path(self.ffn(self.norm2(tokens), size))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """Patch embedding, blocks, LayerNorm.  (B, C_in, H, W) -> (B, C, H/S, W/S)"""

    def __init__(self, embed: OverlapPatchEmbed, blocks: Sequence[Block], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.recompute = False
        """Whether blocks are computed again on the way back, instead of kept (activation checkpointing)."""

    def forward(self, features: Tensor) -> Tensor:
        """The normed map feeds the decoder and the next stage."""
        tokens, size = self.embed(features)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, size, use_reentrant=False) if self.recompute else block(tokens, size)
        return as_map(self.norm(tokens), size)


class MixTransformer(nn.Module):
    """Hierarchical Transformer encoder.  (B, C_in, H, W) -> four maps at strides 4, 8, 16, 32

    The LayerNorm eps is a property of where a checkpoint comes from: ``norm_eps`` is that of the block and stage
    norms, ``embed_norm_eps`` that of the norms after patch embedding and sequence reduction.
    """

    def __init__(
        self,
        size: MiTSize,
        *,
        in_channels: int = 3,
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
        embed_norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = size.channels
        eps = {"norm_eps": norm_eps, "embed_norm_eps": embed_norm_eps}
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        inputs = (in_channels, *size.channels[:-1])
        self.stages = nn.ModuleList(
            Stage(
                OverlapPatchEmbed(c_in, c, kernel, stride, embed_norm_eps),
                [Block(c, heads, reduction, drop_path=next(rates), **eps) for _ in range(depth)],
                nn.LayerNorm(c, eps=norm_eps),
            )
            for c_in, c, depth, heads, reduction, (kernel, stride) in zip(
                inputs, size.channels, size.depths, NUM_HEADS, REDUCTIONS, PATCHES, strict=True
            )
        )
        self.apply(init_weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Sizes are rounded up: an H x W image gives maps of ceil(H/4) x ceil(W/4), ..."""
        maps = []
        features = images.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps

    def fused(self) -> "MixTransformer":
        """Return the inference form: a copy that shares the parameters."""
        fused = sharing_copy(self).eval()
        for block in fused.modules():
            if isinstance(block, Block):
                block.by_bands = True
        return fused


def init_weights(module: nn.Module) -> None:
    """Initialise a layer as the authors do: linear N(0, 0.02) truncated, convolution N(0, 2 / fan_out), norm 1 / 0."""
    if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        return  # there is nothing to initialise, which takes torch a while
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
