"""What encoders and decoders share: tokens seen as a map and back, and a GELU that is not kept."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """View tokens as a map that is channels-last in memory, without a copy.  (B, H*W, C) -> (B, C, H, W)"""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


def as_tokens(features: Tensor) -> Tensor:
    """View a channels-last map as tokens, without a copy.  (B, C, H, W) -> (B, H*W, C)"""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def linear_of_gelu(hidden: Tensor, linear: nn.Module) -> Tensor:
    """linear(gelu(hidden)); on the way back the GELU is computed again from its input, which is kept anyway.

    A quarter of what a block of the encoder would keep for its gradient is kept no more.
    """
    active = F.gelu(hidden)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return linear(active)  # type: ignore[no-any-return]  # nn.Module is untyped
    place = active.data_ptr()

    def pack(tensor: Tensor) -> Tensor | tuple[Tensor, torch.Size]:
        return (hidden, tensor.shape) if tensor.data_ptr() == place else tensor

    def unpack(kept: Tensor | tuple[Tensor, torch.Size]) -> Tensor:
        return F.gelu(kept[0]).view(kept[1]) if isinstance(kept, tuple) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return linear(active)  # type: ignore[no-any-return]
