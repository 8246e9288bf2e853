"""What surrounds the logits of every model of ours: normalized pixels before them, the class of each pixel after."""

import torch
from torch import Tensor, nn

from segformer.config import ModelCard
from segformer.errors import UserError
from segformer.models.interfaces import Decoder, Encoder
from segformer.models.layers import weights_digest
from segformer.ops.upsample_argmax import upsample_argmax


class PixelModel(nn.Module):
    """Base of the Segmenter and its fused form: everything but how the logits are computed.

    Calling it takes normalized floats (B, C_in, H, W), with sides from the encoder's largest stride up, and returns
    logits (B, K, h, w) at the size of the decoder's finest map.
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
            self.register_buffer(name, statistic, persistent=False)  # the card holds it

    @property
    def device(self) -> torch.device:
        """Device that images must be on."""
        return self.mean.device

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn raw pixel values of any type into normalized floats."""
        return (pixels.to(self.mean.dtype) - self.mean) / self.std

    def check_images(self, images: Tensor) -> None:
        """Raise a UserError where the model cannot process a batch of this shape."""
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
        """Raw pixel values (B, C_in, H, W) -> class of every pixel (B, H, W) int64, or of ``size`` = (height, width)"""
        height, width = size or (pixels.shape[2], pixels.shape[3])
        logits = self(self.normalize(pixels))
        return upsample_argmax(logits, (height, width), align_corners=self.card.model.align_corners)

    def fingerprint(self) -> str:
        """Return a digest of the weights."""
        return weights_digest(self)
