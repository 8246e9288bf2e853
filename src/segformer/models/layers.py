"""What encoders and decoders share: tokens seen as a map and back."""

from torch import Tensor


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """View tokens as a map that is channels-last in memory, without a copy.  (B, H*W, C) -> (B, C, H, W)"""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


def as_tokens(features: Tensor) -> Tensor:
    """View a channels-last map as tokens, without a copy.  (B, C, H, W) -> (B, H*W, C)"""
    return features.permute(0, 2, 3, 1).flatten(1, 2)
