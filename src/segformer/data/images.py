"""Images as arrays: the same way for training, prediction and everything else."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.config import ModelConfig, Pixels, Preprocessing, Size
from segformer.data.decoding import open_image, scale_to_8_bits, to_rgb
from segformer.data.raw_images import as_raw, read_raw
from segformer.errors import UserError


@dataclass(frozen=True)
class Decoding:
    """How an image file becomes an array."""

    pixels: Pixels = "rgb"
    channels: int | None = 3
    """Required number of channels; None: any number."""
    enough: Size | None = None
    """(long, short) sides that suffice; a JPEG more than twice as large may be decoded at 1/2, 1/4 or 1/8."""

    @classmethod
    def from_model(cls, model: ModelConfig, preprocessing: Preprocessing) -> "Decoding":
        """Return what a model takes; raises a UserError for RGB with another number of channels than three."""
        if preprocessing.pixels == "rgb" and model.in_channels != 3:
            raise UserError(
                f"model.in_channels must be 3 for preprocessing.pixels rgb, got {model.in_channels}; "
                f"set preprocessing.pixels raw"
            )
        return cls(preprocessing.pixels, model.in_channels)


RGB = Decoding()


def read_image(path: str | Path, decoding: Decoding = RGB) -> Array:
    """Decode an image as (H, W, 3) uint8 RGB, or as its raw channels (H, W, C) uint8 or float32.

    RGB images are rotated as EXIF says; gray, palette and CMYK are converted, transparency is composited over white,
    and 16 bits are scaled to 8.  Raises a UserError for a file that is no image, is cut short, or has another number
    of channels.
    """
    if decoding.pixels == "rgb":
        return to_rgb(open_image(path, decoding.enough))
    return check_num_channels(read_raw(path), path, decoding)


def check_num_channels(pixels: Array, name: object, decoding: Decoding) -> Array:
    """Return an image (H, W, C); raises a UserError where the model takes another number of channels."""
    if decoding.channels not in (None, pixels.shape[2]):
        raise UserError(
            f"{name}: expected an image of model.in_channels = {decoding.channels} channels, got {pixels.shape[2]}; "
            f"segformer inspect prints the options that fit the data"
        )
    return pixels


def image_array(pixels: Array, decoding: Decoding = RGB) -> Array:
    """Check an image given as an array, (H, W) or (H, W, C), and return (H, W, 3) uint8 or its raw channels."""
    if decoding.pixels == "raw":
        if pixels.ndim not in (2, 3) or 0 in pixels.shape:
            raise UserError(
                f"an image array must be (height, width) or (height, width, {decoding.channels}), got {pixels.shape}"
            )
        return check_num_channels(as_raw(pixels, "image"), "image", decoding)
    if pixels.dtype == np.uint16:
        pixels = scale_to_8_bits(pixels)
    if pixels.dtype != np.uint8:
        raise UserError(
            f"an image array must be uint8 or uint16, got {pixels.dtype}; scale floats to 0-255 and convert"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or 0 in pixels.shape:
        raise UserError(f"an image array must be (height, width) or (height, width, 3 or 4), got {pixels.shape}")
    return to_rgb(Image.fromarray(pixels))


def displayed(pixels: Array) -> Array:
    """Show raw channels as a picture: the first three (or the first) stretched from their 2nd to their 98th percentile.

    (H, W, C) -> (H, W, 3) uint8
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    shown = pixels[:, :, [0, 1, 2] if pixels.shape[2] >= 3 else [0, 0, 0]].astype(np.float32)
    low, high = np.percentile(shown, (2, 98), axis=(0, 1))
    return np.asarray(((shown - low) / np.maximum(high - low, 1e-6) * 255).clip(0, 255).round(), dtype=np.uint8)
