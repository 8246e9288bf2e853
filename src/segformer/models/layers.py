"""What encoders and decoders share: tokens as maps, and initialisation."""

import math

from torch import Tensor, nn


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """View tokens as a map that is channels-last in memory, without a copy.  (B, H*W, C) -> (B, C, H, W)"""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


def as_tokens(features: Tensor) -> Tensor:
    """View a channels-last map as tokens, without a copy.  (B, C, H, W) -> (B, H*W, C)"""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def init_weights(module: nn.Module) -> None:
    """Initialise a layer as the authors do: linear N(0, 0.02) truncated, convolution N(0, 2 / fan_out), norm 1 / 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
