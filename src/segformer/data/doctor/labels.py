"""Label table and class names of a data set, as the checks need them: described, or else counted in the masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segformer.arrays import Array
from segformer.data.doctor.facts import SampleFacts
from segformer.data.label_table import INVALID, MAX_CLASSES, LabelTable

RARE_SHARE = 0.005  # share of a mask's pixels below which a value is rare; JPEG adds many rare values
NUM_STRAY = 8  # number of rare values without a class from which a mask counts as damaged
NUM_STRAY_UNKNOWN = 32  # the same for any rare values, if the classes are not known


@dataclass(frozen=True)
class Labels:
    """Label table and class names of a data set; the table is None if no mask was decoded."""

    table: LabelTable | None
    classes: tuple[str, ...]
    counted: bool
    """Whether the classes were counted in the masks, because no description names them."""
    in_description: bool = True
    """Whether class names can be added or changed in dataset.json; False if the classes are defined elsewhere."""

    @classmethod
    def from_masks(cls, samples: Sequence[SampleFacts]) -> "Labels":
        """Return one class per id from 0 to the highest in undamaged masks, as ``description.count_classes`` does."""
        seen = [s.ids for s in samples if s.ids is not None and not is_damaged(s, None)]
        if not seen:
            return cls(None, (), True)
        ids = np.concatenate(seen)
        highest = int(ids[(ids >= 0) & (ids < MAX_CLASSES)].max(initial=0))
        return cls(LabelTable.identity(highest + 1), tuple(f"class_{k}" for k in range(highest + 1)), True)

    @property
    def known_table(self) -> LabelTable | None:
        """The label table, or None if the classes were counted."""
        return None if self.counted else self.table


def is_damaged(sample: SampleFacts, table: LabelTable | None) -> bool:
    """Whether a mask is a JPEG, or has so many rare values that it was probably converted from a JPEG.

    With a table, only values that are neither a class nor ignored count as rare.
    """
    if sample.jpeg:
        return True
    if sample.ids is None or sample.counts is None:
        return False
    share = sample.counts / sample.counts.sum()
    stray = share < RARE_SHARE
    if table is not None:
        stray &= wrong_ids(sample.ids, table)
    enough = int(stray.sum()) >= (NUM_STRAY_UNKNOWN if table is None else NUM_STRAY)
    return enough and int((share >= RARE_SHARE).sum()) < int(stray.sum())


def wrong_ids(ids: Array, table: LabelTable) -> Array:
    """Return for each id whether it is neither a class nor ignored in the table.  (N,) -> (N,) bool"""
    return np.asarray(table.look_up(ids) == INVALID)


def ids_of(sample: SampleFacts) -> Array:
    """Return the label ids of a sample whose mask was decoded."""
    assert sample.ids is not None
    return sample.ids


def all_ids(samples: Sequence[SampleFacts]) -> Array:
    """Return the distinct label ids of all masks, ascending."""
    return np.unique(np.concatenate([ids_of(sample) for sample in samples]))
