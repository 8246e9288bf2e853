"""The trainable segmentation model, made of an encoder and a decoder."""

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError
from segformer.models.fused.segmenter import FusedSegmenter, fused_form
from segformer.models.interfaces import Decoder, Encoder, Network
from segformer.models.layers import AgainstZero
from segformer.models.pixel_model import PixelModel


class Segmenter(PixelModel):
    """A trainable segmentation model, made of an encoder and a decoder.

    Calling the model takes normalized floats (B, C_in, H, W) and returns logits (B, K, h, w) at the size of the
    decoder's finest map, ceil(H/4) x ceil(W/4) for MiT.  ``predict_mask`` takes raw pixel values and returns the class
    of every pixel.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, card: ModelCard) -> None:
        super().__init__(encoder, decoder, card)
        self.head = AgainstZero() if card.model.binary else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of normalized images.  (B, C_in, H, W) -> (B, K, h, w)"""
        self.check_images(images)
        return self.head(self.decoder(self.encoder(images)))  # type: ignore[no-any-return]  # nn.Module is untyped

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs for the training loss from normalized images: the logits, then the auxiliary outputs."""
        self.check_images(images)
        return tuple(self.head(logits) for logits in self.decoder.outputs(self.encoder(images)))

    def fuse(self, dtype: torch.dtype | None = None, *, compile: bool = False) -> FusedSegmenter:
        """Return a separate model for inference that gives the same results with fewer operations.

        Without ``dtype`` the two models share their parameters.  With torch.bfloat16 or torch.float16 the new model has
        its own weights of that type; it still normalizes images and computes masks in float32.  With ``compile`` the
        new model is compiled for each of the first eight batch shapes, which takes seconds to a minute per shape.
        On a GPU each compiled shape is a CUDA graph.  Further shapes run uncompiled.
        """
        fused = FusedSegmenter(
            fused_form(self.encoder), fused_form(self.decoder), fused_form(self.head), self.card, dtype
        )
        fused.to(self.device)
        if compile:
            fused.compile_shapes()
        return fused


def for_inference(network: Network, dtype: torch.dtype | None = None, *, compile: bool = False) -> Network:
    """Return the inference form of a Segmenter; any other network is returned unchanged.

    See ``Segmenter.fuse`` for ``dtype`` and ``compile``.  Raises a UserError if ``compile`` or a different ``dtype`` is
    requested for a network that is not a Segmenter, such as one that is already fused.
    """
    if isinstance(network, Segmenter):
        return network.fuse(dtype, compile=compile)
    if compile or (dtype is not None and getattr(network, "dtype", None) != dtype):
        raise UserError(
            f"precision and compile can be chosen only for a Segmenter, got a {type(network).__name__}; "
            f"pass the Segmenter, or leave out precision and compile"
        )
    return network
