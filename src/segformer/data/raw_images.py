"""Read images with their own channels and units: TIFFs with any number of channels, 16-bit PNGs, and other formats."""

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from segformer.arrays import Array
from segformer.config import Size
from segformer.data.decoding import check_is_file, open_image
from segformer.data.image_paths import TIFF_SUFFIXES
from segformer.errors import UserError

# Exceptions that a damaged file makes tifffile and its decoders raise.
DAMAGE = (
    ValueError, TypeError, LookupError, ArithmeticError, OSError, RuntimeError, MemoryError, AssertionError,
    struct.error,
)  # fmt: skip
NARROW = 32  # pixels; no model takes images narrower than that


def read_raw(path: str | Path) -> Array:
    """Decode the channels as they are stored, in their own units.  -> (H, W, C) uint8, or float32 for all other types

    A TIFF may have any number of channels, on one page or on several pages of the same size.  Palette images become
    RGB.
    """
    check_is_file(path)
    if Path(path).suffix.lower() in TIFF_SUFFIXES:
        pixels = read_tiff(path)
    elif is_deep_png(path):
        pixels = read_deep_png(path)
    else:
        image = open_image(path)
        with suppress(SyntaxError):
            image = ImageOps.exif_transpose(image)
        pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "PA") else image)
    return as_raw(pixels, path)


def as_raw(pixels: Array, name: object) -> Array:
    """Convert pixels to uint8 or float32; raises a UserError for NaN or infinity.  (H, W) or (H, W, C) -> (H, W, C)"""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        missing = int((~np.isfinite(pixels)).any(axis=2).sum())
        fix = "write a number there, and 255 (ignored) into the mask"
        raise UserError(f"{name}: {missing} pixels are not finite; {fix}")
    return pixels


def is_deep_png(path: str | Path) -> bool:
    """Whether a file is a 16-bit PNG with color or transparency, which Pillow would reduce to 8 bits."""
    with Path(path).open("rb") as file:
        header = file.read(26)
    return header.startswith(b"\x89PNG") and len(header) == 26 and header[24] == 16 and header[25] != 0


def read_deep_png(path: str | Path) -> Array:
    """Decode a 16-bit PNG.  -> (H, W, C) uint16"""
    import imagecodecs

    try:
        return np.asarray(imagecodecs.png_decode(Path(path).read_bytes()))
    except (imagecodecs.PngError, ValueError) as error:
        raise UserError(f"{path}: damaged image ({error}); replace or remove it") from error


def read_tiff(path: str | Path) -> Array:
    """Decode a TIFF with any number of channels.  -> (H, W, C) in its own type"""
    with tiff_pages(path) as pages:
        pixels = np.stack([page.asarray() for page in pages])
        axes = "P" + axes_of(pages[0])
        rows = axes.index("Y")
        columns = axes.index("X")
        others = [axis for axis in range(len(axes)) if axis not in (rows, columns)]
        return pixels.transpose(rows, columns, *others).reshape(pixels.shape[rows], pixels.shape[columns], -1)


def tiff_header(path: str | Path) -> tuple[Size, int, str]:
    """Return (height, width), number of channels and data type of a TIFF, without decoding it."""
    with tiff_pages(path) as pages:
        sides = dict(zip(axes_of(pages[0]), pages[0].shape, strict=True))
        channels = len(pages) * math.prod(pages[0].shape) // (sides["Y"] * sides["X"])
        return (sides["Y"], sides["X"]), channels, str(pages[0].dtype)


def axes_of(page: Any) -> str:
    """Return one letter per axis of a page: Y for rows, X for columns, other letters for channels.

    tifffile takes an array (H, W, C) that was written without metadata for H images of W x C.  If C is smaller than
    the width of any usable image, this function takes it for the number of channels.
    """
    axes = str(page.axes)
    shape = page.shape
    return "YXS" if len(axes) == 3 and axes.endswith("YX") and shape[2] < NARROW <= shape[0] else axes


@contextmanager
def tiff_pages(path: str | Path) -> Iterator[list[Any]]:
    """Open a TIFF and yield the list of its pages (or groups of pages) that are as large as the first one."""
    from tifffile import TiffFile, TiffFileError

    try:
        with TiffFile(path) as file:
            yield [series for series in file.series if series.shape == file.series[0].shape]
    except (TiffFileError, *DAMAGE) as error:
        raise UserError(f"{path}: damaged image ({error}); replace or remove it") from error
