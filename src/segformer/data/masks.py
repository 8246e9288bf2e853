"""Index masks: the raw label id of every pixel."""

from pathlib import Path

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.data.decoding import open_image
from segformer.errors import UserError

INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's modes of index masks


def read_mask(path: str | Path) -> Array:
    """Decode an index mask, whose ids are palette indices or gray values of 8 or 16 bits.  -> (H, W) raw label ids

    Raises a UserError that names the file if it is not an image, or if it contains colors instead of ids.
    """
    return index_mask(open_image(path), path)


def index_mask(image: Image.Image, name: object) -> Array:
    """Return the label ids in a decoded mask; raises a UserError if it contains colors instead of ids.  -> (H, W)"""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in INDEX_MODES:
        raise UserError(
            f"{name}: expected an index mask (one channel: gray or palette), got an image of mode {image.mode}; "
            f"save the class index of every pixel as a gray PNG"
        )
    return np.asarray(image)
