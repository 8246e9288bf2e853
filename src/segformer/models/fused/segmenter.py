"""The inference form of a model: fused encoder and decoder, a chosen precision, optional compilation."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.models.decoders.all_mlp import AllMLPDecoder
from segformer.models.encoders.mit import MixTransformer
from segformer.models.fused.all_mlp import FusedAllMLPDecoder
from segformer.models.fused.mit import fuse_mit
from segformer.models.fused.onednn import is_eager_on_cpu
from segformer.models.interfaces import Decoder, Encoder
from segformer.models.layers import sharing_copy
from segformer.models.pixel_model import PixelModel

MAX_COMPILED = 8  # input shapes; each one is compiled separately

FUSED_FORMS: dict[type[nn.Module], Callable[[Any], Any]] = {
    MixTransformer: fuse_mit,
    AllMLPDecoder: FusedAllMLPDecoder,
}
"""For each type of encoder or decoder, the function that builds its inference form.

Modules of other types are used without fusion.
"""


def fused_form(module: Any) -> Any:
    """Return the inference form of an encoder or decoder; parameters that are not merged are shared, not copied."""
    build = FUSED_FORMS.get(type(module))
    return build(module) if build else sharing_copy(module).eval()


class FusedSegmenter(PixelModel):
    """The inference form of a Segmenter: it computes the same logits with fewer operations, but cannot be trained."""

    def __init__(
        self, encoder: Encoder, decoder: Decoder, head: nn.Module, card: ModelCard, dtype: torch.dtype | None = None
    ) -> None:
        """If ``dtype`` is None, the parts are used as given; otherwise encoder and decoder are copied and converted."""
        if dtype is not None:
            encoder = copy.deepcopy(encoder).to(dtype)
            decoder = copy.deepcopy(decoder).to(dtype)
        super().__init__(encoder, decoder, card)
        self.head = head
        self.dtype = dtype
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self.compiled_shapes: set[torch.Size] = set()
        self.eval()

    def compile_shapes(self) -> None:
        """Compile the model for the first eight batch shapes that it gets from now on; other shapes run uncompiled.

        On a GPU the model becomes one CUDA graph for each of these shapes.
        """
        mode = "reduce-overhead" if self.mean.is_cuda else "default"
        self.compiled = torch.compile(self._logits, dynamic=False, mode=mode)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Convert raw pixel values of any type to normalized floats.  (B, C_in, H, W)"""
        by_pixel = pixels.permute(0, 2, 3, 1)
        if by_pixel.is_contiguous() and not pixels.is_contiguous() and is_eager_on_cpu(pixels):
            # In a decoded image the channels of a pixel are adjacent in memory.  A CPU is faster with whole rows then.
            mean, std = (part.flatten().repeat(by_pixel.shape[2]) for part in (self.mean, self.std))
            rows = by_pixel.flatten(2).to(self.mean.dtype, copy=True).sub_(mean).div_(std)
            return rows.view(by_pixel.shape).permute(0, 3, 1, 2)
        return pixels.to(self.mean.dtype, copy=True).sub_(self.mean).div_(self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of normalized images.  (B, C_in, H, W) -> (B, K, h, w)"""
        self.check_images(images)
        images = images if self.dtype is None else images.to(self.dtype)
        if self.compiled is not None and self._is_compiled_for(images):
            logits = self.compiled(images)
            return logits.clone() if logits.is_cuda else logits  # the next call overwrites the result of a CUDA graph
        return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(images)))  # type: ignore[no-any-return]  # nn.Module is untyped

    def _is_compiled_for(self, images: Tensor) -> bool:
        if len(self.compiled_shapes) < MAX_COMPILED:
            self.compiled_shapes.add(images.shape)
        return images.shape in self.compiled_shapes
