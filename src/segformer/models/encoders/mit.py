"""Mix Transformer encoders MiT-B0 ... B5 (Sec. 3.1; sizes in Table 6 of the appendix)."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segformer.config import ModelConfig
from segformer.models.interfaces import Encoder
from segformer.models.layers import StochasticDepth, as_map, as_tokens, init_weights, linear_of_gelu
from segformer.published import MiTSize

NUM_HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # divisor of each side of the token grid; R in Eq. 2 is its square: 64, 16, 4, 1
PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))  # (patch size K, stride S); the padding P is K // 2
STRIDES = (4, 8, 16, 32)  # stride of each stage's map, in pixels of the image
MLP_RATIO = 4


class EfficientSelfAttention(nn.Module):
    """Self-attention of N tokens; keys and values come from N / R tokens (Eq. 1, 2).  (B, N, C) -> (B, N, C)"""

    def __init__(self, channels: int, num_heads: int, reduction: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reduction = reduction
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, channels)
        # A convolution whose stride equals its kernel does the reshape and the linear layer of Eq. 2 in one step.
        self.reduce = nn.Conv2d(channels, channels, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(channels, eps=eps) if reduction > 1 else None

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the attention; ``size`` is the (height, width) of the token grid."""
        key, value = self.keys_and_values(tokens, size)
        attended = F.scaled_dot_product_attention(self.heads(self.query(tokens)), key, value)
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module is untyped

    def keys_and_values(self, tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Compute keys and values on the reduced token grid.  (B, N, C) -> 2 x (B, heads, N / R, C / heads)"""
        key, value = self.key_value(self.reduced(tokens, size)).chunk(2, dim=-1)
        return self.heads(key), self.heads(value)

    def reduced(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Reduce the number of tokens by the factor R (Eq. 2).  (B, N, C) -> (B, N / R, C)"""
        if self.reduce is None or self.norm is None:
            return tokens
        return self.norm(as_tokens(self.reduce(as_map(tokens, size))))  # type: ignore[no-any-return]

    def heads(self, tokens: Tensor) -> Tensor:
        """Divide the channels among the heads.  (B, N, C) -> (B, heads, N, C / heads)"""
        return tokens.view(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)


class OverlapPatchEmbed(nn.Module):
    """Overlapped patch merging: each token is computed from a patch that overlaps the next patches (Sec. 3.1)."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, eps: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens and the (height, width) of their grid; S: stride.  (B, C_in, H, W) -> (B, H/S * W/S, C)"""
        patches = self.project(features)
        return self.norm(as_tokens(patches)), (patches.shape[2], patches.shape[3])


class MixFFN(nn.Module):
    """Feed-forward layer with a 3x3 convolution; its zero padding encodes positions (Eq. 3).  (B, N, C)"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = MLP_RATIO * channels
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the Mix-FFN; ``size`` is the (height, width) of the token grid."""
        hidden = self.depthwise(as_map(self.expand(tokens), size))
        return linear_of_gelu(as_tokens(hidden), self.contract)


class Block(nn.Module):
    """Pre-norm residual block: efficient self-attention, then Mix-FFN.  (B, N, C)"""

    def __init__(
        self, channels: int, num_heads: int, reduction: int, *, drop_path: float, norm_eps: float, embed_norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=norm_eps)
        self.attention = EfficientSelfAttention(channels, num_heads, reduction, embed_norm_eps)
        self.norm2 = nn.LayerNorm(channels, eps=norm_eps)
        self.ffn = MixFFN(channels)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute the block; ``size`` is the (height, width) of the token grid."""
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens), size))
        return tokens + self.drop_path(self.ffn(self.norm2(tokens), size))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A stage of the encoder: patch embedding with stride S, blocks, LayerNorm.  (B, C_in, H, W) -> (B, C, H/S, W/S)"""

    def __init__(self, embed: OverlapPatchEmbed, blocks: Sequence[Block], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.recompute = False
        """Whether the backward pass recomputes the activations of the blocks, which saves memory."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalized map, which the decoder and the next stage read."""
        tokens, size = self.embed(features)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, size, use_reentrant=False) if self.recompute else block(tokens, size)
        return as_map(self.norm(tokens), size)


class MixTransformer(Encoder):
    """Hierarchical Transformer encoder.  (B, C_in, H, W) -> four maps at strides 4, 8, 16, 32

    ``norm_eps`` is the eps of the LayerNorms in blocks and at the end of stages.  ``embed_norm_eps`` is the eps of the
    LayerNorms after patch embedding and after sequence reduction.  These values differ between projects.
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
        self.channels = size.channels
        self.strides = STRIDES
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
        """Compute the four maps.  Their heights and widths are rounded up; the first is ceil(H/4) x ceil(W/4)."""
        maps = []
        features = images.contiguous(memory_format=torch.channels_last)  # so maps and tokens can share memory
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps

    def named_stages(self) -> Mapping[str, nn.Module]:
        """Return the four stages by name, first stage first."""
        return {f"stages.{i}": stage for i, stage in enumerate(self.stages)}

    def recompute(self, on: bool) -> None:
        """Switch activation checkpointing of the blocks on or off; in frozen stages it is always off."""
        for stage in cast("Sequence[Stage]", self.stages):
            stage.recompute = on and any(parameter.requires_grad for parameter in stage.parameters())

    def named_attention(self) -> Mapping[str, nn.Module]:
        """Return the efficient self-attention layer of each block by name."""
        return {name: module for name, module in self.named_modules() if isinstance(module, EfficientSelfAttention)}


def build_mit(size: MiTSize, config: ModelConfig) -> MixTransformer:
    """Return a Mix Transformer with random weights."""
    return MixTransformer(
        size,
        in_channels=config.in_channels,
        drop_path=config.drop_path,
        norm_eps=config.norm_eps,
        embed_norm_eps=config.embed_norm_eps,
    )
