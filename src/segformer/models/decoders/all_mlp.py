"""The All-MLP decoder (Sec. 3.2), both as Equation 4 prints it and in a form that needs fewer operations."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.config import ModelConfig
from segformer.models.interfaces import Decoder
from segformer.models.layers import as_map, as_tokens


class AllMLPDecoder(Decoder):
    """Project all maps to the same channels, upsample them, fuse them and classify.  maps -> (B, K, H/4, W/4)

    ``forward_literal`` follows Equation 4 as printed.  ``forward`` gives the same result, but never applies the fusion
    layer (4C -> C) at full size.  Upsampling acts on positions and a linear layer on channels, so their order
    does not matter.  A linear layer of concatenated maps equals a sum of linear layers, one for each map.  Therefore
    ``forward`` first multiplies the matrix of each projection by the matching part of the fusion matrix.  It applies
    each product to the map of that projection before upsampling, and then adds the upsampled maps.
    """

    classifier: nn.Conv2d

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, *, channels: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(c, channels) for c in in_channels)
        self.fuse = nn.Linear(len(in_channels) * channels, channels, bias=False)  # reads stages 4, 3, 2, 1
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward_literal(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the logits by Equation 4 as printed, plus the norm, ReLU and dropout, which the equation omits."""
        size = maps[0].shape[2:]
        projected = [
            upsample(as_map(projection(as_tokens(m)), (m.shape[2], m.shape[3])), size)
            for m, projection in zip(maps, self.projections, strict=True)
        ]
        fused = linear(torch.cat(projected[::-1], dim=1), self.fuse.weight)
        return self.classifier(self.dropout(F.relu(self.norm(fused))))  # type: ignore[no-any-return]

    def literal(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return ``forward_literal``, which follows Equation 4 as printed."""
        return self.forward_literal

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the input of the classifier.  -> (B, C, h, w)

        Values and gradients equal those of Equation 4 up to rounding.  Dropout multiplies by 0 or by a positive number,
        so it can be applied before the ReLU.  Dropout and ReLU can then work in place.
        """
        fused = merge(maps, *self.merged_projections())
        return F.relu(F.dropout2d(self.norm(fused), self.dropout.p, self.training, inplace=True), inplace=True)

    def merged_projections(self) -> tuple[list[Tensor], Tensor]:
        """Multiply the part W_i of the fusion weight for stage i by the weight L_i and bias b_i of its projection.

        Returns the products W_i L_i (C, C_i), stage 1 first, and the sum of all W_i b_i (C,).
        """
        slices = self.fuse.weight.chunk(len(self.projections), dim=1)[::-1]
        rows = list(zip(slices, self.projections, strict=True))
        weights = [w @ cast("Tensor", projection.weight) for w, projection in rows]
        biases = [w @ cast("Tensor", projection.bias) for w, projection in rows]
        return weights, torch.stack(biases).sum(dim=0)

    def reset_classes(self, num_classes: int) -> None:
        """Replace the classifier by a randomly initialized one with ``num_classes`` outputs."""
        self.classifier = nn.Conv2d(self.classifier.in_channels, num_classes, 1)


def build_all_mlp(
    channels: Sequence[int], strides: Sequence[int], num_classes: int, config: ModelConfig
) -> AllMLPDecoder:
    """Return an All-MLP decoder with random weights; it accepts any number of maps and any strides."""
    return AllMLPDecoder(channels, num_classes, channels=config.decoder_channels, dropout=config.dropout)


def merge(maps: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """Apply a (C, C_i) weight to each map, upsample to the first map's size, add all and the bias.  -> (B, C, h, w)"""
    merged = linear(maps[0], weights[0], bias)  # upsampling does not change a constant bias
    for features, weight in zip(maps[1:], weights[1:], strict=True):
        merged = merged + upsample(linear(features, weight), merged.shape[2:])
    return merged


def linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer at every position of a map.  (B, C_in, H, W) -> (B, C, H, W)"""
    return F.linear(features.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def upsample(features: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample a map bilinearly to ``size`` = (height, width), with align_corners=False as in the released models."""
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
