"""Run-length encoding: an area is stored as the lengths of alternating runs of pixels outside and inside it."""

from dataclasses import dataclass

import numpy as np

from segformer.arrays import Array


@dataclass(frozen=True)
class Runs:
    """Area in a box, stored column by column as lengths of alternating runs: outside the area, inside, outside, ..."""

    counts: tuple[int, ...]
    corner: tuple[int, int]
    """Position (x, y) of the top left corner of the box in the image."""
    size: tuple[int, int]
    """Height and width of the box."""

    @classmethod
    def from_pixels(cls, pixels: Array, corner: tuple[int, int]) -> "Runs":
        """Encode the pixels of a box, whose top left ``corner`` is (x, y), as run lengths.  (H, W) bool"""
        columns = pixels.T.ravel()
        starts = np.flatnonzero(np.diff(columns.astype(np.int8), prepend=0))
        counts = np.diff(np.concatenate([[0], starts, [columns.size]]))
        return cls(tuple(counts.tolist()), corner, (pixels.shape[0], pixels.shape[1]))

    def pixels(self) -> Array:
        """Return the pixels of the box; True is inside the area.  -> (H, W) bool"""
        return np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts).reshape(self.size[::-1]).T


def decompress(text: str) -> list[int]:
    """Decode run lengths in COCO's compressed form.

    A number is stored in two's complement as groups of 5 bits, lowest group first.  Each group is one character, whose
    code is 48 plus the value of the group, plus 32 if the number has another group.  From the fourth number on,
    what is stored is the difference from the number two places before.

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
