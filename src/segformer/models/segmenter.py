"""Encoder + decoder: the trainable model."""

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError
from segformer.models.fused.segmenter import FusedSegmenter, fused_form
from segformer.models.interfaces import Decoder, Encoder, Network
from segformer.models.layers import AgainstZero
from segformer.models.pixel_model import PixelModel


class Segmenter(PixelModel):
    """The trainable model.

    Calling it takes normalized floats (B, C_in, H, W) and returns logits (B, K, h, w) at the size of the decoder's
    finest map, ceil(H/4) x ceil(W/4) for MiT.  ``predict_mask`` takes raw pixel values and returns the class of every
    pixel.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, card: ModelCard) -> None:
        super().__init__(encoder, decoder, card)
        self.head = AgainstZero() if card.model.binary else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Normalized floats (B, C_in, H, W) -> logits (B, K, h, w)"""
        self.check_images(images)
        return self.head(self.decoder(self.encoder(images)))  # type: ignore[no-any-return]  # nn.Module is untyped

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalized floats -> the outputs that training needs: the logits, then those of the auxiliary heads"""
        self.check_images(images)
        return tuple(self.head(logits) for logits in self.decoder.outputs(self.encoder(images)))

    def fuse(self, dtype: torch.dtype | None = None, *, compile: bool = False) -> FusedSegmenter:
        """Return a separate model for inference that computes the same with fewer operations.

        It shares the parameters, unless ``dtype`` is torch.bfloat16 or torch.float16: then it has its own weights of
        that type, while images are still normalized, and masks chosen, in float32.  With ``compile`` it is compiled
        for the first eight shapes of a batch, each for seconds to a minute (on a GPU as CUDA graphs); later shapes
        run uncompiled.
        """
        fused = FusedSegmenter(
            fused_form(self.encoder), fused_form(self.decoder), fused_form(self.head), self.card, dtype
        )
        fused.to(self.device)
        if compile:
            fused.compile_shapes()
        return fused


def for_inference(network: Network, dtype: torch.dtype | None = None, *, compile: bool = False) -> Network:
    """Return the inference form of a Segmenter, and any other network as it is.

    ``dtype`` and ``compile`` are those of ``Segmenter.fuse``; raises a UserError where another network cannot follow
    them.
    """
    if isinstance(network, Segmenter):
        return network.fuse(dtype, compile=compile)
    if compile or (dtype is not None and getattr(network, "dtype", None) != dtype):
        raise UserError(
            f"precision and compile are chosen when a model is fused, and this {type(network).__name__} is finished; "
            f"pass the model itself, or leave both out"
        )
    return network
