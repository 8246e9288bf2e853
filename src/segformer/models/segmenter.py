"""Encoder + decoder: the trainable model."""

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError
from segformer.models.fused.segmenter import FusedSegmenter, fused_form
from segformer.models.interfaces import Decoder, Encoder, Network
from segformer.models.layers import check_images, register_statistics, weights_digest
from segformer.ops.upsample_argmax import upsample_argmax


class Segmenter(nn.Module):
    """Encoder and decoder with the normalisation of their input.

    Calling it takes normalised floats (B, C_in, H, W) of any height and width from 32 up and gives logits
    (B, K, h, w) at the size of the decoder's finest map, ceil(H/4) x ceil(W/4) for MiT.  ``predict_mask`` takes raw
    pixel values and gives class indices at full size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, decoder: Decoder, card: ModelCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = AgainstZero() if card.model.binary else nn.Identity()
        self.card = card
        register_statistics(self, card)

    @property
    def device(self) -> torch.device:
        """Where images have to lie."""
        return self.mean.device

    def normalize(self, pixels: Tensor) -> Tensor:
        """Raw pixel values 0-255 -> what ``forward`` takes."""
        return (pixels.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Normalised floats (B, C_in, H, W) -> logits (B, K, h, w)."""
        check_images(images, self.mean.shape[1])
        return self.head(self.decoder(self.encoder(images)))  # type: ignore[no-any-return]  # nn.Module is untyped

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised floats -> what training needs: the logits, then those of the decoder's auxiliary heads."""
        check_images(images, self.mean.shape[1])
        return tuple(self.head(logits) for logits in self.decoder.outputs(self.encoder(images)))

    @torch.inference_mode()
    def predict_mask(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Class of every pixel.  (B, C_in, H, W) uint8 or float 0-255 -> (B, H, W) int64; ``size``: another (H, W)"""
        height, width = size or (pixels.shape[2], pixels.shape[3])
        logits = self(self.normalize(pixels))
        return upsample_argmax(logits, (height, width), align_corners=self.card.model.align_corners)

    def fingerprint(self) -> str:
        """Digest of the weights."""
        return weights_digest(self)

    def fuse(self, dtype: torch.dtype | None = None, *, compile: bool = False) -> FusedSegmenter:
        """Return a separate, inference-only model that computes the same with less and shares the parameters.

        With ``dtype`` torch.bfloat16 or torch.float16 it has weights of its own and computes in that; images are
        normalised, and masks chosen, in float32 all the same.  With ``compile`` the first eight shapes of a batch are
        compiled (each takes seconds to a minute when it first comes; on a GPU as CUDA graphs), later ones are not.
        """
        fused = FusedSegmenter(
            fused_form(self.encoder), fused_form(self.decoder), fused_form(self.head), self.card, dtype
        )
        fused.to(self.device)
        if compile:
            fused.compile_shapes()
        return fused


def for_inference(network: Network, dtype: torch.dtype | None = None, *, compile: bool = False) -> Network:
    """Return a model's inference form; a network that is one already comes back as it is.

    ``dtype`` and ``compile`` as in ``Segmenter.fuse``; raises a UserError where they are asked of another network.
    """
    if isinstance(network, Segmenter):
        return network.fuse(dtype, compile=compile)
    if compile or (dtype is not None and getattr(network, "dtype", None) != dtype):
        raise UserError(
            f"precision and compile are chosen when a model is fused, and this {type(network).__name__} is finished; "
            f"give the model itself, or leave both out"
        )
    return network


class AgainstZero(nn.Module):
    """One logit of a binary head as those of two classes: 0 and itself.  (B, 1, h, w) -> (B, 2, h, w)

    Their softmax is the logit's sigmoid, and their cross-entropy its binary one.
    """

    def forward(self, logit: Tensor) -> Tensor:
        """Put zeros before it."""
        return torch.cat([torch.zeros_like(logit), logit], dim=1)
