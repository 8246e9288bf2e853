"""The inference form of a model: fused parts, a chosen precision, compiled where that is wanted."""

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
from segformer.models.layers import check_images, register_statistics, sharing_copy, weights_digest
from segformer.ops.upsample_argmax import upsample_argmax

MAX_COMPILED = 8  # shapes; each has kernels of its own

FUSED_FORMS: dict[type[nn.Module], Callable[[Any], Any]] = {
    MixTransformer: fuse_mit,
    AllMLPDecoder: FusedAllMLPDecoder,
}
"""How the inference form of an encoder or decoder is made, by its type; a type without a row is used as it is."""


def fused_form(module: Any) -> Any:
    """Return the inference form of an encoder or decoder; it shares the parameters that it does not merge."""
    make = FUSED_FORMS.get(type(module))
    return make(module) if make else sharing_copy(module).eval()


class FusedSegmenter(nn.Module):
    """A model for inference only: it computes what the Segmenter computes, with less, and cannot be trained.

    Its calls are those of a Segmenter.  In another precision than float32, images are still normalised and masks
    chosen in float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: Encoder, decoder: Decoder, head: nn.Module, card: ModelCard, dtype: torch.dtype | None = None
    ) -> None:
        """``dtype`` is None for float32; for another one the weights are copied."""
        super().__init__()
        self.encoder = encoder if dtype is None else copy.deepcopy(encoder).to(dtype)
        self.decoder = decoder if dtype is None else copy.deepcopy(decoder).to(dtype)
        self.head = head
        self.card = card
        self.dtype = dtype
        self.compiled: Callable[[Tensor], Tensor] | None = None
        self.compiled_shapes: set[torch.Size] = set()
        register_statistics(self, card)
        self.eval()

    def compile_shapes(self) -> None:
        """Compile the first eight shapes of a batch from here on, on a GPU as CUDA graphs; later shapes run eagerly."""
        mode = "reduce-overhead" if self.mean.is_cuda else "default"
        self.compiled = torch.compile(self._logits, dynamic=False, mode=mode)

    @property
    def device(self) -> torch.device:
        """Where images have to lie."""
        return self.mean.device

    def normalize(self, pixels: Tensor) -> Tensor:
        """Raw pixel values 0-255 -> what ``forward`` takes."""
        by_pixel = pixels.permute(0, 2, 3, 1)
        if by_pixel.is_contiguous() and not pixels.is_contiguous() and is_eager_on_cpu(pixels):
            # As decoded, a pixel's channels lie together: a row is then one long line, which processors prefer.
            mean, std = (part.flatten().repeat(by_pixel.shape[2]) for part in (self.mean, self.std))
            rows = by_pixel.flatten(2).to(self.mean.dtype, copy=True).sub_(mean).div_(std)
            return rows.view(by_pixel.shape).permute(0, 3, 1, 2)
        return pixels.to(self.mean.dtype, copy=True).sub_(self.mean).div_(self.std)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised floats (B, C_in, H, W) -> logits (B, K, h, w)."""
        check_images(images, self.mean.shape[1])
        images = images if self.dtype is None else images.to(self.dtype)
        if self.compiled is not None and self._is_compiled_for(images):
            logits = self.compiled(images)
            return logits.clone() if logits.is_cuda else logits  # a CUDA graph overwrites its result with the next one
        return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(images)))  # type: ignore[no-any-return]  # nn.Module is untyped

    def _is_compiled_for(self, images: Tensor) -> bool:
        if len(self.compiled_shapes) < MAX_COMPILED:
            self.compiled_shapes.add(images.shape)
        return images.shape in self.compiled_shapes

    @torch.inference_mode()
    def predict_mask(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Class of every pixel.  (B, C_in, H, W) uint8 or float 0-255 -> (B, H, W) int64; ``size``: another (H, W)"""
        height, width = size or (pixels.shape[2], pixels.shape[3])
        logits = self(self.normalize(pixels))
        return upsample_argmax(logits, (height, width), align_corners=self.card.model.align_corners)

    def fingerprint(self) -> str:
        """Digest of the fused weights."""
        return weights_digest(self)
