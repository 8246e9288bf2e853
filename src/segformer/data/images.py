"""Decoding images and masks, the same way for training and prediction."""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from segformer.arrays import Array
from segformer.config import ModelConfig, Pixels, Preprocessing, Size
from segformer.errors import UserError

INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's, of masks
TIFF_SUFFIXES = (".tif", ".tiff")
NARROW = 32  # pixels; no model takes images narrower than that
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")


@dataclass(frozen=True)
class Decoding:
    """What an image file becomes."""

    pixels: Pixels = "rgb"
    channels: int | None = 3
    """How many there must be; None: any number."""
    enough: Size | None = None
    """(long, short) side; a JPEG of more than twice that may be decoded at 1/2, 1/4 or 1/8 of its size."""

    @classmethod
    def of(cls, model: ModelConfig, preprocessing: Preprocessing) -> "Decoding":
        """Return what a model takes; raises a UserError where it takes other than three channels of RGB."""
        if preprocessing.pixels == "rgb" and model.in_channels != 3:
            raise UserError(
                f"model.in_channels must be 3 for preprocessing.pixels rgb, got {model.in_channels}; set it to raw"
            )
        return cls(preprocessing.pixels, model.in_channels)


RGB = Decoding()


def read_image(path: str | Path, decoding: Decoding = RGB) -> Array:
    """Decode an image as (H, W, 3) uint8 RGB, or as its raw channels (H, W, C) uint8 or float32.

    RGB: turned as its EXIF orientation says; grey, palette and CMYK converted; transparency laid over white; 16 bits
    scaled to 8.  Raises a UserError that names a file that is no image, is cut short, or has
    another number of channels.
    """
    if decoding.pixels == "rgb":
        return to_rgb(open_image(path, decoding.enough))
    return check_channels(read_raw(path), path, decoding)


def check_channels(pixels: Array, name: object, decoding: Decoding) -> Array:
    """Return an image (H, W, C); raises a UserError that names it where C is not what the model takes."""
    if decoding.channels not in (None, pixels.shape[2]):
        raise UserError(
            f"{name}: expected an image of model.in_channels = {decoding.channels} channels, got {pixels.shape[2]}; "
            f"segformer inspect prints the options that fit the data"
        )
    return pixels


def read_raw(path: str | Path) -> Array:
    """Decode the channels as they are stored, in their own units.  -> (H, W, C) uint8, or float32 for other kinds

    TIFFs may have any number of channels, in one page or in several of the same size; palettes become RGB.
    """
    check_is_file(path)
    suffix = Path(path).suffix.lower()
    if suffix in TIFF_SUFFIXES:
        pixels = read_tiff(path)
    elif is_deep_png(path):
        pixels = read_deep_png(path)
    else:
        image = open_image(path)
        with suppress(SyntaxError):
            image = ImageOps.exif_transpose(image)
        pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "PA") else image)
    return as_raw(pixels, path)


def is_deep_png(path: str | Path) -> bool:
    """Whether a file is a PNG of colours, or grey with transparency, of 16 bits: Pillow would cut them to 8."""
    with Path(path).open("rb") as file:
        header = file.read(26)
    return header.startswith(b"\x89PNG") and len(header) == 26 and header[24] == 16 and header[25] != 0


def read_deep_png(path: str | Path) -> Array:
    """Decode a PNG of 16 bits.  -> (H, W, C) uint16"""
    import imagecodecs

    try:
        return np.asarray(imagecodecs.png_decode(Path(path).read_bytes()))
    except imagecodecs.PngError as error:
        raise UserError(f"{path}: damaged image ({error}); replace or remove it") from error


def as_raw(pixels: Array, name: object) -> Array:
    """(H, W) or (H, W, C) of any numbers -> (H, W, C) uint8 or float32; raises a UserError that names what has NaN."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype == np.uint8:
        return pixels
    pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all():
        missing = int((~np.isfinite(pixels)).any(axis=2).sum())
        raise UserError(f"{name}: {missing} pixels are not finite; write a number there, and 255 into the mask")
    return pixels


def read_tiff(path: str | Path) -> Array:
    """Decode a TIFF of any number of channels.  -> (H, W, C) in its own type"""
    with tiff_pages(path) as pages:
        pixels, axes = np.stack([page.asarray() for page in pages]), "P" + axes_of(pages[0])
    rows, columns = axes.index("Y"), axes.index("X")
    others = [axis for axis in range(len(axes)) if axis not in (rows, columns)]
    return pixels.transpose(rows, columns, *others).reshape(pixels.shape[rows], pixels.shape[columns], -1)


def tiff_header(path: str | Path) -> tuple[Size, int, str]:
    """(height, width), number of channels and type of a TIFF, without decoding it."""
    with tiff_pages(path) as pages:
        sides = dict(zip(axes_of(pages[0]), pages[0].shape, strict=True))
        channels = len(pages) * math.prod(pages[0].shape) // (sides["Y"] * sides["X"])
        return (sides["Y"], sides["X"]), channels, str(pages[0].dtype)


def axes_of(page: Any) -> str:
    """A letter for each axis: Y and X of the image, another for channels.

    An array (H, W, C) that was written without further word lies there as H images of W x C; no image is that narrow.
    """
    axes, shape = str(page.axes), page.shape
    return "YXS" if len(axes) == 3 and axes.endswith("YX") and shape[2] < NARROW <= shape[0] else axes


@contextmanager
def tiff_pages(path: str | Path) -> Iterator[list[Any]]:
    """Open a TIFF: its pages, or groups of pages, that are as large as the first."""
    from tifffile import TiffFile, TiffFileError

    try:
        with TiffFile(path) as file:
            yield [series for series in file.series if series.shape == file.series[0].shape]
    except (TiffFileError, ValueError, IndexError, KeyError, OSError, RuntimeError) as error:
        raise UserError(f"{path}: damaged image ({error}); replace or remove it") from error


def read_mask(path: str | Path) -> Array:
    """Decode an index mask as (H, W) of raw label ids: palette indices as stored, or grey values, 8 or 16 bits.

    Raises a UserError that names a file that is no image, or one with colours for ids.
    """
    return index_mask(open_image(path), path)


def index_mask(image: Image.Image, path: object) -> Array:
    """Raw label ids (H, W) of a decoded mask; raises a UserError that names it where it has colours for ids."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in INDEX_MODES:
        raise UserError(
            f"{path}: expected an index mask (one channel: grey or palette), got an image of mode {image.mode}; "
            f"save the class index of every pixel as a grey PNG"
        )
    return np.asarray(image)


def check_is_file(path: str | Path) -> None:
    """Raise UserError where there is no file."""
    if not Path(path).is_file():
        raise UserError(f"{path}: expected an image file, found {'a folder' if Path(path).is_dir() else 'nothing'}")


def open_image(path: str | Path, enough: Size | None = None) -> Image.Image:
    """Decode a file completely, so that damage shows here and is reported with the file's name.

    A JPEG may come at 1/2, 1/4 or 1/8 of its size where that still holds the (long, short) sides ``enough``.
    """
    check_is_file(path)
    return decode(path, path, enough)


def decode(file: str | Path | BytesIO, path: object, enough: Size | None = None) -> Image.Image:
    """Decode a file, on disk or in memory, completely; ``path`` is what to call it in messages."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if enough is not None:
                    scale = min(enough[0] / max(image.size), enough[1] / min(image.size))
                    image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
                image.load()
    except UnidentifiedImageError as error:
        if str(path).lower().endswith(TIFF_SUFFIXES):
            raise UserError(
                f"{path}: expected an image that can be read as RGB, got a TIFF of another kind; for its own channels "
                f"set preprocessing.pixels raw (segformer inspect prints the options), or replace it"
            ) from error
        raise UserError(f"{path}: expected an image, got a file of another kind; replace or remove it") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: {error}; split the image into smaller ones") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged files
        raise UserError(f"{path}: damaged image ({error}); replace or remove it") from error
    return image


def to_rgb(image: Image.Image) -> Array:
    """Return any Pillow image as (H, W, 3) uint8."""
    with suppress(SyntaxError):  # an EXIF block that can not be read says nothing of the orientation
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # exif_transpose copies also what is upright
            image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return np.repeat(scale_to_8_bits(np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def scale_to_8_bits(values: Array) -> Array:
    """Scale 16-bit values (or floats 0-1) to 0-255."""
    if values.dtype.kind == "f":
        return (values * 255.0).clip(0, 255).round().astype(np.uint8)
    return (values.astype(np.float32) / 257.0).clip(0, 255).round().astype(np.uint8)


def image_array(pixels: Array, decoding: Decoding = RGB) -> Array:
    """Check an image given as an array, (H, W), (H, W, C), and return (H, W, 3) uint8, or its raw channels."""
    if decoding.pixels == "raw":
        if pixels.ndim not in (2, 3) or 0 in pixels.shape:
            raise UserError(
                f"an image array must be (height, width) or (height, width, {decoding.channels}), got {pixels.shape}"
            )
        return check_channels(as_raw(pixels, "image"), "image", decoding)
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
    """Raw channels as a picture: the first three (or the first), stretched from their darkest 2 % to their brightest.

    (H, W, C) -> (H, W, 3) uint8
    """
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    shown = pixels[:, :, [0, 1, 2] if pixels.shape[2] >= 3 else [0, 0, 0]].astype(np.float32)
    low, high = np.percentile(shown, (2, 98), axis=(0, 1))
    return np.asarray(((shown - low) / np.maximum(high - low, 1e-6) * 255).clip(0, 255).round(), dtype=np.uint8)


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by path; hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not _hidden(p, folder))
    return sorted(path for path in found if path.is_file())


def expand_inputs(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Files, and the images below folders, each with the relative path that its outputs get.

    Raises a UserError for what does not exist, and a UserError where a folder holds no image.
    """
    expanded = []
    for given in map(Path, inputs):
        if given.is_dir():
            found = list_images(given)
            if not found:
                raise UserError(
                    f"{given}: no images in this folder; expected files such as {', '.join(IMAGE_SUFFIXES[:4])}"
                )
            expanded += [(path, path.relative_to(given)) for path in found]
        elif given.exists():
            expanded.append((given, Path(given.name)))
        else:
            raise UserError(f"{given}: no such file or folder")
    return expanded


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
