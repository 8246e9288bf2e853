"""Rotation by EXIF: the orientation of an image, and whether its mask is rotated in the same way."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from segformer.arrays import Array
from segformer.data.decoding import open_image
from segformer.data.masks import INDEX_MODES
from segformer.errors import UserError

EDGE_FACTOR = 1.1  # the right orientation had at least 1.14 times the contrast in 167 trials with Dubai and CamVid


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, from 1 (as stored) to 8; from 5 on, height and width are swapped.

    For a TIFF, 1 is returned, because Pillow itself rotates TIFFs when it decodes them.
    """
    if image.format == "TIFF":
        return 1
    with suppress(SyntaxError, OSError, ValueError):  # an unreadable EXIF block gives no orientation
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def fits_unrotated(image: Image.Image, rotated: Array, path: Path) -> bool:
    """Whether the borders of the mask fit the edges of the image as stored better than those of the rotated image."""
    try:
        mask = open_image(path)
    except (UserError, OSError):
        return False
    if mask.size != image.size or mask.size != rotated.shape[1::-1] or mask.mode not in INDEX_MODES:
        return False
    labels = np.asarray(mask).astype(np.int32)
    as_stored = edge_contrast(np.asarray(image.convert("RGB").convert("L")), labels)
    return as_stored > EDGE_FACTOR * edge_contrast(np.asarray(Image.fromarray(rotated).convert("L")), labels)


def edge_contrast(gray: Array, mask: Array) -> float:
    """Return the mean step between neighboring gray values at the mask's borders, divided by the image's mean step."""
    steps = [np.abs(np.diff(gray.astype(np.float32), axis=axis)).ravel() for axis in (0, 1)]
    borders = [(np.diff(mask, axis=axis) != 0).ravel() for axis in (0, 1)]
    step = np.concatenate(steps)
    border = np.concatenate(borders)
    return float(step[border].mean() / max(step.mean(), 1e-6)) if border.any() else 0.0
