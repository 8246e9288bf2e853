"""Read images as arrays; training, prediction and all other parts of the package use these functions."""

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
    """How an image file is decoded into an array."""

    pixels: Pixels = "rgb"
    channels: int | None = 3
    """Required number of channels; None: any number."""
    enough: Size | None = None
    """Sufficient (long, short) sides: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if it stays this large."""

    @classmethod
    def from_model(cls, model: ModelConfig, preprocessing: Preprocessing) -> "Decoding":
        """Return the decoding that a model needs; raises a UserError for RGB unless the model takes three channels."""
        if preprocessing.pixels == "rgb" and model.in_channels != 3:
            raise UserError(
                f"model.in_channels must be 3 for preprocessing.pixels rgb, got {model.in_channels}; "
                f"set preprocessing.pixels raw"
            )
        return cls(preprocessing.pixels, model.in_channels)


RGB = Decoding()


def read_image(path: str | Path, decoding: Decoding = RGB) -> Array:
    """Decode an image as RGB or with its raw channels.  -> (H, W, 3) uint8, or (H, W, C) uint8 or float32

    For RGB, the image is rotated as its EXIF orientation says.  Gray, palette and CMYK images are converted,
    transparency is composited over white, and 16-bit values are scaled to 8 bits.  Raises a UserError if the file is
    not an image, is truncated, or has the wrong number of raw channels.
    """
    if decoding.pixels == "rgb":
        return to_rgb(open_image(path, decoding.enough))
    return check_num_channels(read_raw(path), path, decoding)


def check_num_channels(pixels: Array, name: object, decoding: Decoding) -> Array:
    """Return the pixels; raises a UserError if ``decoding`` requires another number of channels.  (H, W, C)"""
    if decoding.channels not in (None, pixels.shape[2]):
        raise UserError(
            f"{name}: expected an image of model.in_channels = {decoding.channels} channels, got {pixels.shape[2]}; "
            f"segformer inspect prints the options that fit the data"
        )
    return pixels


def image_array(pixels: Array, decoding: Decoding = RGB) -> Array:
    """Check an image array and convert it to RGB, or return its raw channels.  (H, W) or (H, W, C) -> (H, W, C')"""
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
            f"an image array must be uint8 or uint16, got {pixels.dtype}; "
            f"scale floats to 0-255 and convert them to uint8"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or 0 in pixels.shape:
        raise UserError(f"an image array must be (height, width) or (height, width, 3 or 4), got {pixels.shape}")
    return to_rgb(Image.fromarray(pixels))


def displayed(pixels: Array) -> Array:
    """Convert raw channels to an RGB image for display.  (H, W, C) -> (H, W, 3) uint8

    The first three channels, or only the first one if there are fewer, are stretched from their 2nd to their 98th
    percentile.  8-bit images with three channels stay unchanged.
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    shown = pixels[:, :, [0, 1, 2] if pixels.shape[2] >= 3 else [0, 0, 0]].astype(np.float32)
    low, high = np.percentile(shown, (2, 98), axis=(0, 1))
    return np.asarray(((shown - low) / np.maximum(high - low, 1e-6) * 255).clip(0, 255).round(), dtype=np.uint8)
