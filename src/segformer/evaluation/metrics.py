"""IoU, accuracy and their means over a whole data set, from one confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segformer.arrays import Array


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores computed from a confusion matrix (K, K) of pixel counts: rows are labels, columns are predictions."""

    confusion: Array
    classes: tuple[str, ...]

    @cached_property
    def iou(self) -> Array:
        """IoU of each class over the whole data set, (K,); NaN for a class that is in no label and no prediction."""
        union = self.confusion.sum(0) + self.confusion.sum(1) - np.diag(self.confusion)
        return _divide(np.diag(self.confusion), union)

    @cached_property
    def accuracy(self) -> Array:
        """Share of each class's pixels that are predicted correctly, (K,); NaN for a class without labeled pixels."""
        return _divide(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in labels or predictions."""
        return _mean(self.iou)

    @property
    def macc(self) -> float:
        """Mean of the class accuracies, over the classes that occur in the labels."""
        return _mean(self.accuracy)

    @property
    def aacc(self) -> float:
        """Share of all labeled pixels that are predicted correctly."""
        return float(_divide(np.trace(self.confusion), self.confusion.sum()))

    @cached_property
    def frequency(self) -> Array:
        """Each class's share of all labeled pixels, (K,)."""
        return _divide(self.confusion.sum(1), self.confusion.sum())

    def summary(self) -> dict[str, float]:
        """Return the three means by name: mIoU, mAcc and aAcc."""
        return {"mIoU": self.miou, "mAcc": self.macc, "aAcc": self.aacc}

    def to_json(self) -> Mapping[str, Any]:
        """Return all scores and the confusion matrix as a JSON object; a score that is NaN becomes None."""
        per_class = {
            name: {"iou": or_none(iou), "accuracy": or_none(accuracy), "share_of_pixels": or_none(share)}
            for name, iou, accuracy, share in zip(self.classes, self.iou, self.accuracy, self.frequency, strict=True)
        }
        means = {name: or_none(value) for name, value in self.summary().items()}
        return {**means, "classes": per_class, "confusion": self.confusion.tolist()}


def _divide(numerator: Any, denominator: Any) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.asarray(numerator, dtype=np.float64) / denominator)


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def or_none(value: float) -> float | None:
    """Return the value, or None if it is NaN, which JSON cannot represent."""
    return None if np.isnan(value) else float(value)
