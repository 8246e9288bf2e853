"""Decoding images and masks, the same way for training and prediction."""

import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Array = NDArray[Any]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")


def read_image(path: str | Path) -> Array:
    """Decode an image as (H, W, 3) uint8 RGB.

    Turned as its EXIF orientation says; grey, palette and CMYK converted; transparency laid over white; 16 bits
    scaled to 8.  Raises FileNotFoundError, or a ValueError that names a file that is no image or is cut short.
    """
    return to_rgb(open_image(path))


def read_mask(path: str | Path) -> Array:
    """Decode an index mask as (H, W) of raw label ids: palette indices as stored, or grey values, 8 or 16 bits.

    Raises FileNotFoundError, or a ValueError that names a file that is no image, or one with colours for ids.
    """
    image = open_image(path)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in ("L", "P", "I", "I;16", "I;16B"):
        raise ValueError(
            f"{path}: expected an index mask (one channel: grey or palette), got an image of mode {image.mode}; "
            f"save the class index of every pixel as a grey PNG"
        )
    return np.asarray(image)


def open_image(path: str | Path) -> Image.Image:
    """Decode a file completely, so that damage shows here and is reported with the file's name."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: expected an image file, found {'a folder' if Path(path).is_dir() else 'nothing'}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: expected an image, got a file of another kind; replace or remove it") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {error}; split the image into smaller ones") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged files
        raise ValueError(f"{path}: damaged image ({error}); replace or remove it") from error
    return image


def to_rgb(image: Image.Image) -> Array:
    """Return any Pillow image as (H, W, 3) uint8."""
    with suppress(SyntaxError):  # an EXIF block that can not be read says nothing of the orientation
        image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return np.repeat(scale_to_8_bits(np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def scale_to_8_bits(values: Array) -> Array:
    """Scale 16-bit values (or floats 0-1) to 0-255."""
    if values.dtype.kind == "f":
        return (values * 255.0).clip(0, 255).round().astype(np.uint8)
    return (values.astype(np.float32) / 257.0).clip(0, 255).round().astype(np.uint8)


def image_array(pixels: Array) -> Array:
    """Check an image given as an array, (H, W), (H, W, 1 | 3 | 4), and return (H, W, 3) uint8."""
    if pixels.dtype == np.uint16:
        pixels = scale_to_8_bits(pixels)
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"an image array must be uint8 or uint16, got {pixels.dtype}; scale floats to 0-255 and convert"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or 0 in pixels.shape:
        raise ValueError(f"an image array must be (height, width) or (height, width, 3 or 4), got {pixels.shape}")
    return to_rgb(Image.fromarray(pixels))


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, sorted by path; hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not _hidden(p, folder))
    return sorted(path for path in found if path.is_file())


def expand_inputs(inputs: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Files, and the images below folders, each with the relative path that its outputs get.

    Raises FileNotFoundError for what does not exist, and a ValueError where a folder holds no image.
    """
    expanded = []
    for given in map(Path, inputs):
        if given.is_dir():
            found = list_images(given)
            if not found:
                raise ValueError(
                    f"{given}: no images in this folder; expected files such as {', '.join(IMAGE_SUFFIXES[:4])}"
                )
            expanded += [(path, path.relative_to(given)) for path in found]
        elif given.exists():
            expanded.append((given, Path(given.name)))
        else:
            raise FileNotFoundError(f"{given}: no such file or folder")
    return expanded


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
