"""The result of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.errors import UserError
from segformer.evaluation.calibration import Calibration
from segformer.evaluation.metrics import Scores, or_none
from segformer.evaluation.statistics import LEVEL, Comparison, compare, interval, iou_of, mean_of
from segformer.evaluation.tally import Tally

FEWEST_SEQUENCES = 5  # an interval over fewer sequences would mean nothing


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The counts of each image, and the figures made from them.

    evaluation = segformer.evaluate(model, data)
    evaluation.scores.miou, evaluation.interval, evaluation.calibration.ece
    """

    tally: Tally
    classes: tuple[str, ...]
    names: Sequence[str]
    """Names of the images."""
    groups: Sequence[str]
    """Sequence that each image belongs to; its own name where there are no sequences."""

    @cached_property
    def scores(self) -> Scores:
        """IoU, accuracy and their means over the whole split."""
        return Scores(self.tally.confusion, self.classes)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in labels or predictions."""
        return self.scores.miou

    @cached_property
    def boundary_iou(self) -> Array:
        """IoU of each class near borders, (K,); NaN for a class that does not occur there."""
        return iou_of(self.tally.borders.sum(axis=0))

    @property
    def boundary_miou(self) -> float:
        """Mean boundary IoU over the classes that occur near borders."""
        return float(mean_of(self.boundary_iou))

    @cached_property
    def image_miou(self) -> Array:
        """Mean IoU of each image over the classes in its label or prediction, (N,); NaN if nothing is labeled."""
        return mean_of(iou_of(self.tally.images))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mIoU over images, or over sequences of them; NaN for fewer than two."""
        return interval(self.tally.images, self.drawn)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration on a sample of the labeled pixels."""
        return Calibration.from_counts(self.tally.nll, self.tally.bins)

    @cached_property
    def drawn(self) -> Sequence[str]:
        """What the bootstrap draws each image with: its sequence, or the image alone if there are under 5 sequences."""
        return self.groups if len(set(self.groups)) >= FEWEST_SEQUENCES else self.names

    @property
    def unit(self) -> str:
        """The number of images or sequences that the bootstrap draws from, in words."""
        sequences = len(set(self.groups))
        images = len(self.names)
        if sequences == images:
            return f"{images} images"
        if sequences >= FEWEST_SEQUENCES:
            return f"{sequences} sequences"
        return f"{images} images of only {sequences} sequences, so the interval is too narrow"

    def worst(self, count: int) -> list[int]:
        """Return the indices of the images with the lowest mIoU, worst first."""
        order = np.argsort(self.image_miou, kind="stable")  # NaN last
        return [int(k) for k in order[:count] if not np.isnan(self.image_miou[k])]

    def compare(self, other: "Evaluation") -> Comparison:
        """Compare another model with this one; raises a UserError unless both saw the same images and classes."""
        if list(self.names) != list(other.names) or self.classes != other.classes:
            raise UserError("two models can be compared only on the same images and classes; evaluate both on them")
        return compare(self.tally.images, other.tally.images, self.drawn)

    def to_json(self) -> Mapping[str, Any]:
        """Return all figures, and the mIoU of each image; a figure that is not defined is None."""
        values = {**self.scores.to_json()}
        for name, iou in zip(self.classes, self.boundary_iou, strict=True):
            values["classes"][name]["boundary_iou"] = or_none(iou)
        low, high = self.interval
        return {
            "mIoU": values.pop("mIoU"),
            "miou_interval": {"low": or_none(low), "high": or_none(high), "level": LEVEL, "unit": self.unit},
            "boundary_miou": or_none(self.boundary_miou),
            "calibration": self.calibration.to_json(),
            **values,
            "images": {name: or_none(miou) for name, miou in zip(self.names, self.image_miou, strict=True)},
        }
