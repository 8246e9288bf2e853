"""Observe samples: open the files of each sample once, and store facts about them."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from segformer.data.decoding import open_image, to_rgb
from segformer.data.doctor.facts import SampleFacts, channel_moments, color_facts, image_facts, label_facts
from segformer.data.doctor.items import Item
from segformer.data.doctor.orientation import fits_unrotated, orientation_of
from segformer.data.image_paths import TIFF_SUFFIXES
from segformer.data.images import displayed
from segformer.data.masks import INDEX_MODES
from segformer.data.raw_images import read_raw, tiff_header
from segformer.errors import UserError

CHANNELS = {"1": "gray", "L": "gray", "LA": "gray + alpha", "La": "gray + alpha", "P": "RGB", "PA": "RGBA"}
CHANNELS |= {"RGBa": "RGBA", "RGBX": "RGB", "I": "16-bit", "F": "float"}  # by Pillow's mode


def observe(item: Item, cheap: bool) -> SampleFacts:
    """Return the facts about a sample; with ``cheap``, only the files' headers are read, unless the sizes differ."""
    if item.drawn is not None:
        return observe_drawn(item, cheap)
    facts: dict[str, Any] = {}
    for name in ("image", "mask", "expected_mask"):
        if (path := getattr(item, name)) is not None:
            facts[name] = str(path)
    if item.image is not None:
        facts |= observe_image(item.image, item.mask, cheap)
        if item.mask is not None:
            facts |= observe_mask(item.mask, cheap)
        if cheap and facts.get("size") != facts.get("mask_size"):  # a PNG may store its rotation after the pixels
            facts["size"] = observe_image(item.image, item.mask, cheap=False).get("size")
    return SampleFacts(split=item.split, **facts)


def observe_drawn(item: Item, cheap: bool) -> SampleFacts:
    """Return the facts about a sample that is not a pair of files; with ``cheap``, the sample is not read."""
    assert item.drawn is not None
    if cheap:
        return SampleFacts(split=item.split, image=item.name, mask=item.name, drawn=True)
    pixels, mask = item.drawn.read()
    facts = image_facts(pixels) | channel_moments(pixels) | label_facts(mask)
    return SampleFacts(split=item.split, image=item.name, mask=item.name, drawn=True, size=pixels.shape[:2], **facts)


def observe_image(path: Path, mask: Path | None, cheap: bool) -> dict[str, Any]:
    """Return the facts about an image file; the file ``mask`` shows whether the image's rotation by EXIF is right."""
    if path.suffix.lower() in TIFF_SUFFIXES and needs_tiff_reader(path):
        return observe_tiff(path, cheap)
    try:
        image, orientation = open_header(path) if cheap else open_whole(path)
    except (UserError, OSError) as error:
        return {"image_error": reason_of(error, path)}
    stored = (image.height, image.width)
    facts: dict[str, Any] = {"stored_size": stored, "size": stored[::-1] if orientation >= 5 else stored}
    facts["channels"] = channels_of(image)
    if not cheap:
        pixels = to_rgb(image)
        facts |= image_facts(pixels) | channel_moments(read_raw(path) if is_raw(facts["channels"]) else pixels)
        if orientation > 1 and mask is not None:
            facts["fits_unrotated"] = fits_unrotated(image, pixels, mask)
    return facts


def needs_tiff_reader(path: Path) -> bool:
    """Whether a TIFF needs tifffile, because it has neither one channel nor 8-bit colors; False without tifffile."""
    with suppress(UserError, OSError, ModuleNotFoundError):
        _, channels, kind = tiff_header(path)
        return channels != 1 and not (channels in (3, 4) and kind == "uint8")
    return False


def observe_tiff(path: Path, cheap: bool) -> dict[str, Any]:
    """Return the facts about a TIFF that Pillow cannot read."""
    try:
        size, channels, kind = tiff_header(path)
        facts: dict[str, Any] = {"stored_size": size, "size": size, "channels": f"{channels} x {kind}"}
        if not cheap:
            pixels = read_raw(path)
            facts |= image_facts(displayed(pixels)) | channel_moments(pixels)
    except (UserError, OSError) as error:
        return {"image_error": reason_of(error, path)}
    return facts


def observe_mask(path: Path, cheap: bool) -> dict[str, Any]:
    """Return the facts about a mask file."""
    try:
        image, _ = open_header(path) if cheap else open_whole(path)
    except (UserError, OSError) as error:
        return {"mask_error": reason_of(error, path)}
    facts: dict[str, Any] = {"mask_size": (image.height, image.width), "jpeg": is_jpeg(path)}
    if image.mode not in INDEX_MODES:
        facts["mask_mode"] = image.mode
        return facts if cheap else facts | color_facts(np.asarray(image.convert("RGB")))
    return facts if cheap else facts | label_facts(np.asarray(image))


def open_whole(path: Path) -> tuple[Image.Image, int]:
    """Decode a file; returns the image and its EXIF orientation."""
    image = open_image(path)
    return image, orientation_of(image)


def open_header(path: Path) -> tuple[Image.Image, int]:
    """Read only the header of a file; returns the undecoded image and its EXIF orientation.

    If a PNG stores its orientation after the pixels, the returned orientation is 1.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                late = image.format == "PNG" and "exif" not in image.info
                return image, 1 if late else orientation_of(image)
        except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: {error}") from error


def reason_of(error: Exception, path: Path) -> str:
    """Return the reason in an error message about a file, without the file's name and the proposed fix."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error).removeprefix(f"{path}: ").split(";")[0]


def channels_of(image: Image.Image) -> str:
    """Return the kind of an image's channels, such as RGB, gray or 16-bit."""
    if image.mode.startswith("I;16"):
        return "16-bit"
    if image.mode == "P" and "transparency" in image.info:
        return "RGBA"
    return CHANNELS.get(image.mode, image.mode)


def is_raw(channels: str) -> bool:
    """Whether images with these channels lose information when they are read as 8-bit RGB."""
    return channels in ("16-bit", "float") or " x " in channels


def is_jpeg(path: Path) -> bool:
    """Whether a file is a JPEG, regardless of its name."""
    with path.open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"
