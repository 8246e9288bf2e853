"""Facts about one sample: the few values stored about an image and its mask, so that all samples can be compared."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.config import Color, Size

NUM_COLORS = 32  # stored colors of a color mask; only the most frequent ones


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleFacts:
    """Facts about an image and its mask; a fact that was not measured has its default value."""

    split: str
    image: str = ""
    """Image file; empty if there is only a mask."""
    mask: str = ""
    """Mask file; empty if there is no mask."""
    drawn: bool = False
    """Whether the sample is not a pair of image and mask file; ``image`` and ``mask`` are then the sample's name."""
    expected_mask: str = ""
    """Path of the PNG mask that was expected, if a mask in an unsuitable format was found instead; otherwise empty."""
    image_error: str = ""
    """Reason why the image cannot be decoded; empty if it can."""
    mask_error: str = ""
    """Reason why the mask cannot be decoded; empty if it can."""
    stored_size: Size | None = None
    """(height, width) of the image before it is rotated as EXIF says."""
    size: Size | None = None
    """(height, width) of the image after it is rotated as EXIF says."""
    mask_size: Size | None = None
    """(height, width) of the mask."""
    channels: str = ""
    """Kind of channels, such as RGB or gray."""
    fits_unrotated: bool = False
    """Whether the mask's class borders match the image better without its EXIF rotation than with it."""
    jpeg: bool = False
    """Whether the mask is a JPEG file."""
    mask_mode: str = ""
    """Pillow's mode, such as RGB, of a mask that is not an index mask; otherwise empty."""
    num_colors: int = 0
    """Number of distinct colors in a color mask."""
    colors: tuple[Color, ...] = ()
    """Most frequent colors of a color mask, starting with the most frequent one."""
    ids: Array | None = None
    """Raw label ids in the mask, ascending."""
    counts: Array | None = None
    """Number of pixels of each id in ``ids``."""
    moments: Array | None = None
    """Number, sum and sum of squares of each channel's values.  (3, C)"""
    digest: bytes = b""
    """Digest of the decoded image."""
    bits: Array | None = None
    """Difference hash of the image.  (64,) bool"""
    thumbnail: Array | None = None
    """Gray thumbnail of the image.  (16, 16)"""

    @property
    def files(self) -> tuple[str, ...]:
        """Image file and mask file, if they exist."""
        return tuple(name for name in (self.image, self.mask) if name)


def image_facts(pixels: Array) -> dict[str, Any]:
    """Return digest, difference hash and thumbnail of an image as fields of SampleFacts.  (H, W, 3)"""
    gray = Image.fromarray(pixels).convert("L")
    steps = np.asarray(gray.resize((9, 8), Image.Resampling.BOX))
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=str(pixels.shape).encode()[:16]).digest()
    thumbnail = np.asarray(gray.resize((16, 16), Image.Resampling.BOX))
    return {"digest": digest, "bits": (steps[:, 1:] > steps[:, :-1]).ravel(), "thumbnail": thumbnail}


def channel_moments(pixels: Array) -> dict[str, Any]:
    """Return number, sum and sum of squares of each channel's values as a field of SampleFacts.  (H, W, C)"""
    values = pixels.reshape(-1, pixels.shape[2])
    sums = values.sum(0, dtype=np.float64)
    squares = np.einsum("ij,ij->j", values, values, dtype=np.float64, casting="unsafe")
    return {"moments": np.stack([np.full_like(sums, len(values)), sums, squares])}


def label_facts(mask: Array) -> dict[str, Any]:
    """Return fields of SampleFacts for a mask: its size, its label ids and the number of pixels of each id.  (H, W)"""
    if mask.dtype in (np.uint8, bool):
        counts = np.bincount(mask.ravel().astype(np.uint8), minlength=256)
        ids = np.flatnonzero(counts)
        return {"mask_size": mask.shape, "ids": ids, "counts": counts[ids]}
    ids, counts = np.unique(mask.astype(np.int64), return_counts=True)
    return {"mask_size": mask.shape, "ids": ids, "counts": counts}


def color_facts(pixels: Array) -> dict[str, Any]:
    """Return a mask's number of colors and most frequent colors as fields of SampleFacts.  (H, W, 3)"""
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    values, counts = np.unique(packed, return_counts=True)
    top = values[np.argsort(-counts, kind="stable")][:NUM_COLORS].tolist()
    return {"num_colors": len(values), "colors": tuple((v >> 16, v >> 8 & 255, v & 255) for v in top)}
