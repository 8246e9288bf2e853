"""Facts of one sample: the little that is kept of an image and its mask, so that all samples can be compared."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.config import Color, Size

NUM_COLORS = 32  # kept of a color mask


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleFacts:
    """Facts of an image and its mask; a field keeps its default if it was not measured."""

    split: str
    image: str = ""
    """Image file; empty if there is only a mask."""
    mask: str = ""
    """Mask file; empty if there is none."""
    drawn: bool = False
    """Whether ``image`` and ``mask`` are names of a drawn sample instead of files."""
    expected_mask: str = ""
    """Where the mask should be, if it is elsewhere."""
    image_error: str = ""
    """Why the image cannot be decoded."""
    mask_error: str = ""
    """Why the mask cannot be decoded."""
    stored_size: Size | None = None
    """(height, width) before the rotation that EXIF asks for."""
    size: Size | None = None
    """(height, width) after that rotation."""
    mask_size: Size | None = None
    """(height, width) of the mask."""
    channels: str = ""
    """Kind of channels: RGB, gray, ..."""
    fits_unrotated: bool = False
    """Whether the mask's borders follow the edges of the image as stored, and not as EXIF rotates it."""
    jpeg: bool = False
    """Whether the mask was compressed as a JPEG."""
    mask_mode: str = ""
    """Pillow's mode of a mask that is no index mask."""
    num_colors: int = 0
    """Number of distinct colors in a color mask."""
    colors: tuple[Color, ...] = ()
    """Most frequent colors of a color mask, in that order."""
    ids: Array | None = None
    """Raw label ids in the mask, ascending."""
    counts: Array | None = None
    """Number of pixels of each id."""
    moments: Array | None = None
    """(3, C): number, sum and sum of squares of each channel's values."""
    digest: bytes = b""
    """Digest of the decoded image."""
    bits: Array | None = None
    """(64,) bool: difference hash of the image."""
    thumbnail: Array | None = None
    """(16, 16) gray."""

    @property
    def files(self) -> tuple[str, ...]:
        """Image and mask, as far as they exist."""
        return tuple(name for name in (self.image, self.mask) if name)


def image_facts(pixels: Array) -> dict[str, Any]:
    """Digest, difference hash and thumbnail of an image (H, W, 3)."""
    gray = Image.fromarray(pixels).convert("L")
    steps = np.asarray(gray.resize((9, 8), Image.Resampling.BOX))
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=str(pixels.shape).encode()[:16]).digest()
    thumbnail = np.asarray(gray.resize((16, 16), Image.Resampling.BOX))
    return {"digest": digest, "bits": (steps[:, 1:] > steps[:, :-1]).ravel(), "thumbnail": thumbnail}


def channel_moments(pixels: Array) -> dict[str, Any]:
    """Number, sum and sum of squares of each channel's values in an image (H, W, C)."""
    values = pixels.reshape(-1, pixels.shape[2])
    sums = values.sum(0, dtype=np.float64)
    squares = np.einsum("ij,ij->j", values, values, dtype=np.float64, casting="unsafe")
    return {"moments": np.stack([np.full_like(sums, len(values)), sums, squares])}


def label_facts(mask: Array) -> dict[str, Any]:
    """Size of a mask (H, W), its ids, and the number of pixels of each."""
    if mask.dtype in (np.uint8, bool):
        counts = np.bincount(mask.ravel().astype(np.uint8), minlength=256)
        ids = np.flatnonzero(counts)
        return {"mask_size": mask.shape, "ids": ids, "counts": counts[ids]}
    ids, counts = np.unique(mask.astype(np.int64), return_counts=True)
    return {"mask_size": mask.shape, "ids": ids, "counts": counts}


def color_facts(pixels: Array) -> dict[str, Any]:
    """Number of distinct colors in a mask (H, W, 3), and the most frequent ones."""
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    values, counts = np.unique(packed, return_counts=True)
    top = values[np.argsort(-counts, kind="stable")][:NUM_COLORS].tolist()
    return {"num_colors": len(values), "colors": tuple((v >> 16, v >> 8 & 255, v & 255) for v in top)}
