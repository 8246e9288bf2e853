"""Labels of a data set as the checks see them: the table, the classes, and whether they are known or counted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segformer.arrays import Array
from segformer.data.doctor.facts import SampleFacts
from segformer.data.label_table import INVALID, MAX_CLASSES, LabelTable

RARE_SHARE = 0.005  # share of a mask's pixels below which JPEG leaves stray values around the true ones
NUM_STRAY = 8  # rare values of no class that show damage
NUM_STRAY_UNKNOWN = 32  # rare values that show damage where the classes are not known


@dataclass(frozen=True)
class Labels:
    """Label table and class names; no table if no mask was decoded."""

    table: LabelTable | None
    classes: tuple[str, ...]
    counted: bool
    """Whether the classes were counted in the masks instead of described."""

    @classmethod
    def from_masks(cls, samples: Sequence[SampleFacts]) -> "Labels":
        """Count the classes as ``description.count_classes`` does: 0 to the highest id, damaged masks left out."""
        seen = [s.ids for s in samples if s.ids is not None and not is_damaged(s, None)]
        if not seen:
            return cls(None, (), True)
        ids = np.concatenate(seen)
        highest = int(ids[(ids >= 0) & (ids < MAX_CLASSES)].max(initial=0))
        return cls(LabelTable.identity(highest + 1), tuple(f"class_{k}" for k in range(highest + 1)), True)

    @property
    def known_table(self) -> LabelTable | None:
        """The table, unless the classes were counted."""
        return None if self.counted else self.table


def is_damaged(sample: SampleFacts, table: LabelTable | None) -> bool:
    """Whether many rare values surround the true ones, as JPEG leaves them; with a table, only values of no class."""
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
    """Whether each id is missing from the table."""
    return np.asarray(table.look_up(ids) == INVALID)


def ids_of(sample: SampleFacts) -> Array:
    """Label ids of a mask that was decoded."""
    assert sample.ids is not None
    return sample.ids


def all_ids(samples: Sequence[SampleFacts]) -> Array:
    """Label ids of all masks, ascending."""
    return np.unique(np.concatenate([ids_of(sample) for sample in samples]))
