"""Base class of the models: it normalizes pixels for the network, and chooses each pixel's class by the logits."""

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError
from segformer.models.interfaces import Decoder, Encoder
from segformer.models.layers import weights_digest
from segformer.ops.upsample_argmax import upsample_argmax


class PixelModel(nn.Module):
    """Base class of Segmenter and FusedSegmenter, which add the computation of the logits.

    Calling the model takes normalized floats (B, C_in, H, W) and returns logits (B, K, h, w) at the size of the
    decoder's finest map.  Height and width must be at least the encoder's largest stride.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, decoder: Decoder, card: ModelCard) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.card = card
        for name, values in (("mean", card.preprocessing.mean), ("std", card.preprocessing.std)):
            statistic = torch.tensor(values, device="cpu").view(1, -1, 1, 1)
            self.register_buffer(name, statistic, persistent=False)  # not saved with the weights: it is in the card

    @property
    def device(self) -> torch.device:
        """The device on which images are expected."""
        return self.mean.device

    def normalize(self, pixels: Tensor) -> Tensor:
        """Convert raw pixel values of any type to normalized floats.  (B, C_in, H, W)"""
        return (pixels.to(self.mean.dtype) - self.mean) / self.std

    def check_images(self, images: Tensor) -> None:
        """Raise a UserError if the model cannot process a batch of this shape."""
        in_channels = self.mean.shape[1]
        if images.ndim != 4 or images.shape[1] != in_channels:
            raise UserError(f"images must be (batch, {in_channels}, height, width), got {tuple(images.shape)}")
        if min(images.shape[2:]) < self.encoder.min_size:
            raise UserError(
                f"images must be at least {self.encoder.min_size} pixels high and wide, "
                f"got {images.shape[2]} x {images.shape[3]}; enlarge them first"
            )

    @torch.inference_mode()
    def predict_mask(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Predict the class of every pixel from raw pixel values.  (B, C_in, H, W) -> (B, H, W) int64

        The mask has the size of the images, or ``size`` = (height, width) if it is given.
        """
        height, width = size or (pixels.shape[2], pixels.shape[3])
        logits = self(self.normalize(pixels))
        return upsample_argmax(logits, (height, width), align_corners=self.card.model.align_corners)

    def fingerprint(self) -> str:
        """Return a digest of the weights; models with different weights have different digests."""
        return weights_digest(self)
