"""Inference form of the All-MLP decoder.

The linear layers and the batch norm are merged in advance.  On a CPU, the decoder is computed in bands of rows.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segformer.models.decoders.all_mlp import AllMLPDecoder, linear, merge, upsample
from segformer.models.fused.onednn import BAND, is_eager_on_cpu, quick_linear
from segformer.models.interfaces import Decoder
from segformer.models.layers import sharing_copy
from segformer.ops.bilinear import tiles


class FusedAllMLPDecoder(Decoder):
    """The All-MLP decoder in evaluation mode, with its weights merged in advance.  maps -> (B, K, H/4, W/4)"""

    classifier: nn.Conv2d

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

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the input of the classifier.  -> (B, C, h, w)"""
        return F.relu(merge(maps, list(self.weights), self.bias))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the logits; they equal those of the trainable decoder in evaluation mode up to rounding."""
        if not is_eager_on_cpu(maps[0]):
            return self.classifier(self.features(maps))  # type: ignore[no-any-return]  # nn.Module is untyped
        batch, _, height, width = maps[0].shape
        logits = maps[0].new_empty(
            batch, height, width, self.classifier.out_channels
        )  # the logits of one pixel are adjacent in memory
        for k in range(batch):
            self.by_bands([m[k : k + 1] for m in maps], logits[k])
        return logits.permute(0, 3, 1, 2)

    def by_bands(self, maps: Sequence[Tensor], logits: Tensor) -> None:
        """Write the logits of one image into ``logits``, one band of rows at a time.  (h, w, K)

        A band is small enough that its intermediate results fit into the cache.  Each band needs only a few rows of
        each coarser map.  These rows are first upsampled to full width.  One matrix product then interpolates between
        the rows and adds the result to the band.
        """
        height, width, num_classes = logits.shape
        first = maps[0].permute(0, 2, 3, 1)[0]
        channels = self.bias.shape[0]
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
