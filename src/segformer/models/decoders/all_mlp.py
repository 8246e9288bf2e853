"""All-MLP decoder (Sec. 3.2), computed without its C x 4C fusion."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.config import ModelConfig
from segformer.models.interfaces import Decoder
from segformer.models.layers import as_map, as_tokens


class AllMLPDecoder(Decoder):
    """Four linear layers, fusion, norm, classifier: the paper's parameters.  maps -> (B, K, H/4, W/4)

    Upsampling acts on space and a linear layer on channels, so they commute, and a linear layer of a concatenation
    is a sum of linear layers.  ``features`` therefore multiplies each projection with its slice of the fusion (a
    product of two small matrices), applies the result where the map is still small, upsamples and adds.
    ``forward_literal`` is Equation 4 as printed; tests compare the two.
    """

    classifier: nn.Conv2d

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, *, channels: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(c, channels) for c in in_channels)
        self.fuse = nn.Linear(len(in_channels) * channels, channels, bias=False)  # its input: stage 4, 3, 2, 1
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Equal to Equation 4 up to rounding, in training and in inference, gradients included.  -> (B, C, h, w)"""
        fused = merge(maps, *self.merged_projections())
        # Dropout scales by 0 or more: before the ReLU it is the same, and both reuse the memory of the norm's output.
        return F.relu(F.dropout2d(self.norm(fused), self.dropout.p, self.training, inplace=True), inplace=True)

    def forward_literal(self, maps: Sequence[Tensor]) -> Tensor:
        """Equation 4 as printed (with the norm, ReLU and dropout that it leaves out): the reference."""
        size = maps[0].shape[2:]
        projected = [
            upsample(as_map(projection(as_tokens(m)), (m.shape[2], m.shape[3])), size)
            for m, projection in zip(maps, self.projections, strict=True)
        ]
        fused = linear(torch.cat(projected[::-1], dim=1), self.fuse.weight)
        return self.classifier(self.dropout(F.relu(self.norm(fused))))  # type: ignore[no-any-return]

    def literal(self) -> Callable[[Sequence[Tensor]], Tensor]:
        """Equation 4 as printed."""
        return self.forward_literal

    def merged_projections(self) -> tuple[list[Tensor], Tensor]:
        """Weights W_i L_i (C, C_i) of the four maps, stage 1 first, and their one bias, sum of W_i b_i (C,)."""
        slices = self.fuse.weight.chunk(len(self.projections), dim=1)[::-1]
        rows = list(zip(slices, self.projections, strict=True))
        weights = [w @ cast("Tensor", projection.weight) for w, projection in rows]
        biases = [w @ cast("Tensor", projection.bias) for w, projection in rows]
        return weights, torch.stack(biases).sum(dim=0)

    def reset_classes(self, num_classes: int) -> None:
        """Replace the classifier by a random one."""
        self.classifier = nn.Conv2d(self.classifier.in_channels, num_classes, 1)


def build_all_mlp(
    channels: Sequence[int], strides: Sequence[int], num_classes: int, config: ModelConfig
) -> AllMLPDecoder:
    """Return an All-MLP decoder with random weights; it upsamples every map to the first one, whatever the strides."""
    return AllMLPDecoder(channels, num_classes, channels=config.decoder_channels, dropout=config.dropout)


def merge(maps: Sequence[Tensor], weights: Sequence[Tensor], bias: Tensor) -> Tensor:
    """Sum of the maps, each through its (C, C_i) weight and then upsampled to the first one's size.  -> (B, C, h, w)"""
    merged = linear(maps[0], weights[0], bias)  # the bias is constant in space: it may be added at any one map
    for features, weight in zip(maps[1:], weights[1:], strict=True):
        merged = merged + upsample(linear(features, weight), merged.shape[2:])
    return merged


def linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer at every position of a map.  (B, C_in, H, W) -> (B, C, H, W)"""
    return F.linear(features.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def upsample(features: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, align_corners=False, as in every released model."""
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
