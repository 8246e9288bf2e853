"""All-MLP decoder (Sec. 3.2), computed without its C x 4C fusion."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.models.layers import BAND, as_map, as_tokens, is_eager_on_cpu, quick_linear, sharing_copy
from segformer.ops.bilinear import tiles


class AllMLPDecoder(nn.Module):
    """Four linear layers, fusion, norm, classifier: the paper's parameters.  maps -> (B, K, H/4, W/4)

    Upsampling acts on space and a linear layer on channels, so they commute, and a linear layer of a concatenation
    is a sum of linear layers.  ``forward`` therefore multiplies each projection with its slice of the fusion (a
    product of two small matrices), applies the result where the map is still small, upsamples and adds.
    ``forward_literal`` is Equation 4 as printed; tests compare the two.
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, *, channels: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(c, channels) for c in in_channels)
        self.fuse = nn.Linear(len(in_channels) * channels, channels, bias=False)  # its input: stage 4, 3, 2, 1
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Equal to ``forward_literal`` up to rounding, in training and in inference, gradients included."""
        fused = merge(maps, *self.merged_projections())
        # Dropout scales by 0 or more: before the ReLU it is the same, and both take the memory of the norm's output.
        active = F.relu(F.dropout2d(self.norm(fused), self.dropout.p, self.training, inplace=True), inplace=True)
        return self.classifier(active)  # type: ignore[no-any-return]  # nn.Module is untyped

    def forward_literal(self, maps: Sequence[Tensor]) -> Tensor:
        """Equation 4 as printed (with the norm, ReLU and dropout that it leaves out): the reference."""
        size = maps[0].shape[2:]
        projected = [
            upsample(as_map(projection(as_tokens(m)), (m.shape[2], m.shape[3])), size)
            for m, projection in zip(maps, self.projections, strict=True)
        ]
        fused = linear(torch.cat(projected[::-1], dim=1), self.fuse.weight)
        return self.classifier(self.dropout(F.relu(self.norm(fused))))  # type: ignore[no-any-return]

    def merged_projections(self) -> tuple[list[Tensor], Tensor]:
        """Weights W_i L_i (C, C_i) of the four maps, stage 1 first, and their one bias, sum of W_i b_i (C,)."""
        slices = self.fuse.weight.chunk(len(self.projections), dim=1)[::-1]
        rows = list(zip(slices, self.projections, strict=True))
        weights = [w @ cast("Tensor", projection.weight) for w, projection in rows]
        biases = [w @ cast("Tensor", projection.bias) for w, projection in rows]
        return weights, torch.stack(biases).sum(dim=0)

    def fused(self) -> "FusedAllMLPDecoder":
        """Return the inference form: merged projections with the norm folded in."""
        return FusedAllMLPDecoder(self)


class FusedAllMLPDecoder(nn.Module):
    """Inference form of the All-MLP decoder, its weights merged once.  maps -> (B, K, H/4, W/4)"""

    def __init__(self, decoder: AllMLPDecoder) -> None:
        super().__init__()
        norm = decoder.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            weights, bias = decoder.merged_projections()
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            self.weights = nn.ParameterList(nn.Parameter(scale[:, None] * w, requires_grad=False) for w in weights)
            self.bias = nn.Parameter(scale * (bias - norm.running_mean) + norm.bias, requires_grad=False)
        self.classifier = sharing_copy(decoder.classifier)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the same logits as the trainable decoder in evaluation mode, up to rounding."""
        if not is_eager_on_cpu(maps[0]):
            return self.classifier(F.relu(merge(maps, list(self.weights), self.bias)))  # type: ignore[no-any-return]
        batch, _, height, width = maps[0].shape
        logits = maps[0].new_empty(batch, height, width, self.classifier.out_channels)  # a pixel's lie together
        for k in range(batch):
            self.by_bands([m[k : k + 1] for m in maps], logits[k])
        return logits.permute(0, 3, 1, 2)

    def by_bands(self, maps: Sequence[Tensor], logits: Tensor) -> None:
        """Fill in one image's logits (h, w, K) some rows at a time: what lies between stays in the processor's cache.

        The rows of a map that a band is made of are widened to the first map's width, and mixed by a small matrix
        product that adds to the first map's.
        """
        height, width, num_classes = logits.shape
        first, channels = maps[0].permute(0, 2, 3, 1)[0], self.bias.shape[0]
        coarse = [linear(m, weight) for m, weight in zip(maps[1:], self.weights[1:], strict=True)]
        rows = max(1, BAND // (width * channels * first.element_size()))
        mixes = zip(*(tiles(m.shape[2], height, False, m, rows) for m in coarse), strict=True)
        for start, mix in zip(range(0, height, rows), mixes, strict=True):
            band = slice(start, min(start + rows, height))
            merged = quick_linear(first[band], self.weights[0], self.bias).view(band.stop - start, -1)
            for m, (sources, _, matrix) in zip(coarse, mix, strict=True):
                near = m[:, :, sources]
                wide = upsample(near, (near.shape[2], width)).permute(0, 2, 3, 1).reshape(near.shape[2], -1)
                merged.addmm_(matrix.T, wide)
            active = F.relu(merged, inplace=True).view(1, -1, channels)
            found = quick_linear(active, self.classifier.weight.flatten(1), self.classifier.bias)
            logits[band] = found.view(-1, width, num_classes)


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
