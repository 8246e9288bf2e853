"""The scores of a model on clean and corrupted images, and their means."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.evaluation.metrics import Scores
from segformer.robustness.corruptions import CORRUPTIONS, corruption_groups, corruption_names

Cell = tuple[str, int]
"""Name of a corruption, and a severity from 1 to 5; ``CLEAN`` stands for the clean images."""
CLEAN: Cell = ("clean", 0)


@dataclass(frozen=True, eq=False)
class Robustness:
    """Scores on clean images and for every measured cell, a corruption at a severity.  mIoU is from 0 to 1."""

    clean: Scores
    cells: Mapping[Cell, Scores]
    setting: Mapping[str, Any]
    """Everything that the scores depend on, as JSON values."""

    @property
    def corruptions(self) -> tuple[str, ...]:
        """Names of the measured corruptions, in the order of Table 5."""
        measured = {corruption for corruption, _ in self.cells}
        return tuple(name for name in corruption_names() if name in measured)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Names of the measured corruptions of each group; groups without measured corruptions are left out."""
        groups = {
            group: tuple(name for name in names if name in self.corruptions)
            for group, names in corruption_groups().items()
        }
        return {group: names for group, names in groups.items() if names}

    @property
    def severities(self) -> tuple[int, ...]:
        """The measured severities, mildest first."""
        return tuple(sorted({severity for _, severity in self.cells}))

    def severities_in_mean(self, corruption: str) -> tuple[int, ...]:
        """Return the measured severities over which scores are averaged: for noise only 1 to 3, otherwise all."""
        return tuple(s for s in CORRUPTIONS[corruption].severities_in_mean if (corruption, s) in self.cells)

    def miou(self, corruption: str) -> float:
        """Return the mean mIoU over ``severities_in_mean``; NaN if no such severity was measured."""
        return finite_mean(self.cells[corruption, severity].miou for severity in self.severities_in_mean(corruption))

    def group_miou(self, group: str) -> float:
        """Return the mean of ``miou`` over the measured corruptions of a group; NaN if none was measured."""
        return finite_mean(self.miou(name) for name in self.groups.get(group, ()))

    @property
    def corrupted_miou(self) -> float:
        """Mean of ``miou`` over all measured corruptions."""
        return finite_mean(self.miou(name) for name in self.corruptions)

    def retained(self, miou: float) -> float:
        """Return ``miou`` as a share of the clean mIoU; NaN if the clean mIoU is 0."""
        return miou / self.clean.miou if self.clean.miou > 0 else float("nan")

    def retained_iou(self, corruption: str) -> Array:
        """Return, for each class, the IoU on corrupted images as a share of the IoU on clean images.  -> (num_classes,)

        The IoU on corrupted images is the mean over ``severities_in_mean``.  The share is NaN if the IoU on clean
        images is 0, or if no such severity was measured.
        """
        scores = [self.cells[corruption, severity] for severity in self.severities_in_mean(corruption)]
        if not scores:
            return np.full(len(self.clean.classes), np.nan)
        clean = np.where(self.clean.iou > 0, self.clean.iou, np.nan)
        return np.asarray(np.mean([score.iou for score in scores], axis=0) / clean)

    def to_json(self) -> Mapping[str, Any]:
        """Return the setting and all scores as JSON values, without the confusion matrices."""
        return {
            "setting": self.setting,
            "clean": json_number(self.clean.miou),
            "corrupted": json_number(self.corrupted_miou),
            "retained": json_number(self.retained(self.corrupted_miou)),
            "groups": {group: json_number(self.group_miou(group)) for group in corruption_groups()},
            "corruptions": {name: self._corruption_json(name) for name in self.corruptions},
        }

    def _corruption_json(self, name: str) -> Mapping[str, Any]:
        measured = [severity for severity in self.severities if (name, severity) in self.cells]
        classes = zip(self.clean.classes, self.retained_iou(name), strict=True)
        return {
            "miou": json_number(self.miou(name)),
            "severities_in_mean": list(self.severities_in_mean(name)),
            "retained": json_number(self.retained(self.miou(name))),
            "severities": {str(severity): json_number(self.cells[name, severity].miou) for severity in measured},
            "retained_iou": {label: json_number(share) for label, share in classes},
        }


def finite_mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN if there are none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def json_number(value: float) -> float | None:
    """Round a number to six decimals; NaN becomes None, because JSON has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None
