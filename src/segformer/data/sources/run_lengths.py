"""Run lengths: areas stored as the lengths of alternating runs of pixels."""

from dataclasses import dataclass

import numpy as np

from segformer.arrays import Array


@dataclass(frozen=True)
class Runs:
    """Pixels of a box as run lengths, column after column: first pixels outside, then inside, and so on in turn."""

    counts: tuple[int, ...]
    corner: tuple[int, int]
    """Left and top of the box in the image."""
    size: tuple[int, int]
    """Height and width of the box."""

    @classmethod
    def from_pixels(cls, pixels: Array, corner: tuple[int, int]) -> "Runs":
        """Count the runs of a box (H, W) bool."""
        columns = pixels.T.ravel()
        starts = np.flatnonzero(np.diff(columns.astype(np.int8), prepend=0))
        counts = np.diff(np.concatenate([[0], starts, [columns.size]]))
        return cls(tuple(counts.tolist()), corner, (pixels.shape[0], pixels.shape[1]))

    def pixels(self) -> Array:
        """Which pixels are inside.  -> (H, W) bool"""
        return np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts).reshape(self.size[::-1]).T


def decompress(text: str) -> list[int]:
    """Run lengths in COCO's compressed form.

    Each character holds 5 bits, lowest first, as 48 plus their value, plus 32 if more characters follow; the last bit
    is the sign.  From the fourth number on, each is the difference to the number two places before.

    >>> decompress("0141N0003")
    [0, 1, 4, 2, 2, 2, 2, 2, 5]
    """
    counts: list[int] = []
    value = 0
    shift = 0
    for bits in (ord(character) - 48 for character in text):
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= 1 << shift if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = 0
            shift = 0
    return counts
