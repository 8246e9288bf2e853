"""The result of an evaluation: pixel counts, and the scores computed from them."""

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

FEWEST_SEQUENCES = 5  # a bootstrap over fewer sequences would give a meaningless interval


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of an evaluation: pixel counts of each image, and the scores computed from them.

    evaluation = segformer.evaluate(model, data)
    evaluation.scores.miou, evaluation.interval, evaluation.calibration.ece
    """

    tally: Tally
    classes: tuple[str, ...]
    names: Sequence[str]
    """Name of each image."""
    groups: Sequence[str]
    """For each image, the name of its video sequence, or the image's own name if it belongs to no sequence."""

    @cached_property
    def scores(self) -> Scores:
        """IoU and accuracy of each class over the whole split, and their means."""
        return Scores(self.tally.confusion, self.classes)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur in labels or predictions."""
        return self.scores.miou

    @cached_property
    def boundary_iou(self) -> Array:
        """IoU of each class over pixels near borders, (K,); NaN for a class without pixels near borders."""
        return iou_of(self.tally.borders.sum(axis=0))

    @property
    def boundary_miou(self) -> float:
        """Mean boundary IoU over the classes that occur near borders."""
        return float(mean_of(self.boundary_iou))

    @cached_property
    def image_miou(self) -> Array:
        """Mean IoU of each image, (N,), over the classes in its label or prediction; NaN if no pixel is labeled."""
        return mean_of(iou_of(self.tally.images))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Lower and upper limit of the 95 % bootstrap interval of the mIoU; NaN for fewer than two images."""
        return interval(self.tally.images, self.drawn)

    @cached_property
    def calibration(self) -> Calibration:
        """Calibration of the predicted probabilities, measured on a sample of the labeled pixels."""
        return Calibration.from_counts(self.tally.nll, self.tally.bins)

    @cached_property
    def drawn(self) -> Sequence[str]:
        """Bootstrap group of each image: its sequence, or the image itself if there are fewer than 5 sequences."""
        return self.groups if len(set(self.groups)) >= FEWEST_SEQUENCES else self.names

    @property
    def unit(self) -> str:
        """Text that says how many images or sequences the bootstrap draws from, such as "500 images"."""
        sequences = len(set(self.groups))
        images = len(self.names)
        if sequences == images:
            return f"{images} images"
        if sequences >= FEWEST_SEQUENCES:
            return f"{sequences} sequences"
        return f"{images} images of only {sequences} sequences, so the interval is too narrow"

    def worst(self, count: int) -> list[int]:
        """Return the indices of the ``count`` images with the lowest mIoU, worst first; fewer if fewer have an mIoU."""
        order = np.argsort(self.image_miou, kind="stable")  # argsort puts NaN last
        return [int(k) for k in order[:count] if not np.isnan(self.image_miou[k])]

    def compare(self, other: "Evaluation") -> Comparison:
        """Compare two models: this evaluation is of the first model, ``other`` is of the second.

        Raises a UserError if the images or the classes of the two evaluations differ.
        """
        if list(self.names) != list(other.names) or self.classes != other.classes:
            raise UserError(
                "two models can be compared only on the same images and classes; evaluate both on one data set"
            )
        return compare(self.tally.images, other.tally.images, self.drawn)

    def to_json(self) -> Mapping[str, Any]:
        """Return all scores and the mIoU of each image as a JSON object; a score that is NaN becomes None."""
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
