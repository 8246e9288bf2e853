"""Decode image files with Pillow, and convert the images to RGB arrays."""

import math
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from segformer.arrays import Array
from segformer.config import Size
from segformer.data.image_paths import TIFF_SUFFIXES
from segformer.errors import UserError


def check_is_file(path: str | Path) -> None:
    """Raise a UserError if the path is not a file."""
    if not Path(path).is_file():
        raise UserError(f"{path}: expected an image file, found {'a folder' if Path(path).is_dir() else 'nothing'}")


def open_image(path: str | Path, enough: Size | None = None) -> Image.Image:
    """Decode a file completely, so that damage is found at once and reported with the file's name.

    A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as its (long, short) sides are at least ``enough``.
    """
    check_is_file(path)
    return decode(path, path, enough)


def decode(file: str | Path | BytesIO, name: object, enough: Size | None = None) -> Image.Image:
    """Decode a whole image file, on disk or in memory; ``name`` stands for the file in error messages.

    ``enough`` is explained in ``open_image``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if enough is not None:
                    scale = min(enough[0] / max(image.size), enough[1] / min(image.size))
                    image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
                image.load()
    except UnidentifiedImageError as error:
        if str(name).lower().endswith(TIFF_SUFFIXES):
            raise UserError(
                f"{name}: expected an image that can be read as RGB, got another kind of TIFF; to use its own "
                f"channels, set preprocessing.pixels raw (segformer inspect prints the options), or replace the file"
            ) from error
        raise UserError(f"{name}: expected an image, got a file of another kind; replace or remove it") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: {error}; split the image into smaller ones") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged files
        raise UserError(f"{name}: damaged image ({error}); replace or remove it") from error
    return image


def to_rgb(image: Image.Image) -> Array:
    """Convert any Pillow image to RGB, rotated as its EXIF orientation says.  -> (H, W, 3) uint8"""
    with suppress(SyntaxError):  # an unreadable EXIF block gives no orientation
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # exif_transpose copies upright images too
            image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return np.repeat(scale_to_8_bits(np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def scale_to_8_bits(values: Array) -> Array:
    """Scale 16-bit values, or floats from 0 to 1, to the range from 0 to 255.  -> uint8, same shape"""
    if values.dtype.kind == "f":
        return (values * 255.0).clip(0, 255).round().astype(np.uint8)
    return (values.astype(np.float32) / 257.0).clip(0, 255).round().astype(np.uint8)
