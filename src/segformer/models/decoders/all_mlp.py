"""All-MLP decoder (Sec. 3.2): Equation 4 as printed, and the same function with fewer operations."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.config import ModelConfig
from segformer.models.interfaces import Decoder
from segformer.models.layers import as_map, as_tokens


class AllMLPDecoder(Decoder):
    """Unify the channels of all maps, upsample them to the first one, fuse, classify.  maps -> (B, K, H/4, W/4)

    ``forward_literal`` is Equation 4 as printed.  ``forward`` computes the same without its fusion of C x 4C at full
    size: upsampling acts on space and a linear layer on channels, so they commute, and a linear layer of a
    concatenation is a sum of linear layers.  It multiplies each projection with its part of the fusion (a product of
    two small matrices), applies the result at the map's own size, upsamples and adds.
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
        """Compute Equation 4 as printed, with the norm, ReLU and dropout that it omits."""
        size = maps[0].shape[2:]
        projected = [
            upsample(as_map(projection(as_tokens(m)), (m.shape[2], m.shape[3])), size)
            for m, projection in zip(maps, self.projections, strict=True)
        ]
        fused = linear(torch.cat(projected[::-1], dim=1), self.fuse.weight)
        return self.classifier(self.dropout(F.relu(self.norm(fused))))  # type: ignore[no-any-return]

    def literal(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return Equation 4 as printed."""
        return self.forward_literal

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the input of the classifier; equal to Equation 4 up to rounding, gradients included.  -> (B, C, h, w)

        Dropout multiplies by 0 or a positive number, so it may come before the ReLU; both then work in place.
        """
        fused = merge(maps, *self.merged_projections())
        return F.relu(F.dropout2d(self.norm(fused), self.dropout.p, self.training, inplace=True), inplace=True)

    def merged_projections(self) -> tuple[list[Tensor], Tensor]:
        """Return the weight W_i L_i (C, C_i) of each map, stage 1 first, and the bias, the sum of all W_i b_i (C,)."""
        slices = self.fuse.weight.chunk(len(self.projections), dim=1)[::-1]
        rows = list(zip(slices, self.projections, strict=True))
        weights = [w @ cast("Tensor", projection.weight) for w, projection in rows]
        biases = [w @ cast("Tensor", projection.bias) for w, projection in rows]
        return weights, torch.stack(biases).sum(dim=0)

    def reset_classes(self, num_classes: int) -> None:
        """Replace the classifier by a randomly initialized one."""
        self.classifier = nn.Conv2d(self.classifier.in_channels, num_classes, 1)


def build_all_mlp(
    channels: Sequence[int], strides: Sequence[int], num_classes: int, config: ModelConfig
) -> AllMLPDecoder:
    """Return an All-MLP decoder with random weights, for any number of maps at any strides."""
    return AllMLPDecoder(channels, num_classes, channels=config.decoder_channels, dropout=config.dropout)


def merge(maps: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """Multiply each map by its (C, C_i) weight, upsample it to the size of the first one, and add.  -> (B, C, h, w)"""
    merged = linear(maps[0], weights[0], bias)  # upsampling does not change a constant
    for features, weight in zip(maps[1:], weights[1:], strict=True):
        merged = merged + upsample(linear(features, weight), merged.shape[2:])
    return merged


def linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer at every position of a map.  (B, C_in, H, W) -> (B, C, H, W)"""
    return F.linear(features.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def upsample(features: Tensor, size: Sequence[int]) -> Tensor:
    """Upsample bilinearly, with align_corners=False as in every released model."""
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
