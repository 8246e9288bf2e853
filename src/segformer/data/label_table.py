"""Label tables, which map each raw id in the masks of a data set to a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX
from segformer.errors import UserError

INVALID = -1  # marks raw ids that must not occur in a mask
MAX_CLASSES = IGNORE_INDEX


@dataclass(frozen=True)
class LabelTable:
    """Table that translates the raw label ids of a mask to class indices."""

    values: Array
    """Class index, IGNORE_INDEX or INVALID for each raw id.  (largest raw id + 1,) int16"""

    @classmethod
    def identity(cls, num_classes: int, ignore_index: int = IGNORE_INDEX) -> "LabelTable":
        """Return the table for masks of class indices; ``ignore_index`` is ignored, and ids of no class are errors."""
        if num_classes > MAX_CLASSES:
            raise UserError(f"at most {MAX_CLASSES} classes are supported, got {num_classes}; merge some of them")
        values = np.full(max(num_classes, ignore_index) + 1, INVALID, dtype=np.int16)
        values[:num_classes] = np.arange(num_classes)
        values[ignore_index] = IGNORE_INDEX
        return cls(values)

    @classmethod
    def from_mapping(cls, mapping: Mapping[int, int], size: int = 256, unlisted: int = INVALID) -> "LabelTable":
        """Return a table in which each id below ``size`` gets its value in the mapping, or else ``unlisted``.

        Ids from ``size`` on are errors, as are ids with the value INVALID (-1).

        >>> LabelTable.from_mapping({0: IGNORE_INDEX, 1: 0}, size=3).values.tolist()
        [255, 0, -1]
        """
        for raw, value in mapping.items():
            if not 0 <= raw < size or not INVALID <= value <= IGNORE_INDEX:
                raise UserError(
                    f"a label table of size {size} must map ids 0-{size - 1} to classes 0-{MAX_CLASSES - 1}, "
                    f"{IGNORE_INDEX} (ignored) or {INVALID} (must not occur), got {raw} -> {value}"
                )
        return cls(np.array([mapping.get(raw, unlisted) for raw in range(size)], dtype=np.int16))

    @property
    def class_ids(self) -> Array:
        """Raw ids that stand for a class, ascending."""
        return np.flatnonzero((self.values != INVALID) & (self.values != IGNORE_INDEX))

    @property
    def ignored_ids(self) -> Array:
        """Raw ids that are ignored, ascending."""
        return np.flatnonzero(self.values == IGNORE_INDEX)

    def look_up(self, ids: Array) -> Array:
        """Return the class index of each raw id, or IGNORE_INDEX or INVALID.  (...) -> (...)"""
        inside = np.clip(ids, 0, len(self.values) - 1)
        return np.where(inside == ids, self.values[inside], INVALID)

    def with_classes(self, classes: Sequence[int]) -> "LabelTable":
        """Return a table in which each class k is replaced by ``classes[k]``."""
        renumbered = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, dtype=np.int16)
        renumbered[: len(classes)] = classes
        values = np.where(self.values == INVALID, INVALID, renumbered[self.values.clip(0)])
        return LabelTable(values.astype(np.int16))

    def apply(self, mask: Array, name: object) -> Array:
        """Translate raw ids to class indices; raises a UserError that names invalid ids.  (H, W) -> (H, W) uint8"""
        if mask.dtype == np.uint8:
            codes, mark = self._codes
            translated = bytearray(mask).translate(codes)  # several times as fast as indexing an array
            if mark not in translated:
                return np.frombuffer(translated, np.uint8).reshape(mask.shape)
        mask = mask.astype(np.int32)
        classes = self.look_up(mask)
        wrong = classes == INVALID
        if wrong.any():
            raise UserError(self._message(mask, wrong, name))
        return np.asarray(classes, dtype=np.uint8)

    @cached_property
    def _codes(self) -> tuple[bytes, bytes]:
        """Return the class index of each id from 0 to 255, and the unused value that invalid ids get instead."""
        values = np.full(256, INVALID)
        values[: len(self.values)] = self.values[:256]
        free = np.setdiff1d(np.arange(256), values)[:1]  # empty only if no id is INVALID
        values[values == INVALID] = free
        return values.astype(np.uint8).tobytes(), free.astype(np.uint8).tobytes()

    def _message(self, mask: Array, wrong: Array, name: object) -> str:
        found = ", ".join(map(str, np.unique(mask[wrong])[:5]))
        return (
            f"{name}: expected labels {ranges(self.class_ids)} or {ranges(self.ignored_ids)} (ignored), got {found} "
            f"at {int(wrong.sum())} pixels; correct the mask or the classes"
        )


def ranges(ids: Array) -> str:
    """Write ascending ids as ranges.

    >>> ranges(np.array([0, 1, 2, 5, 7, 8]))
    '0-2, 5, 7-8'
    """
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if len(run))
