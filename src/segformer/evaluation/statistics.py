"""Uncertainty of scores: bootstrap intervals, and a significance test for two models on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segformer.arrays import Array

SAMPLES = 2000  # number of bootstrap samples and number of permutations
LEVEL = 0.95  # confidence level of all intervals


def iou_of(counts: Array) -> Array:
    """Compute each class's IoU from its pixel counts in intersection, label and prediction.  (..., 3, K) -> (..., K)

    The IoU is NaN for a class that occurs neither in the label nor in the prediction.
    """
    intersection, label, prediction = (counts[..., row, :].astype(np.float64) for row in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(intersection / (label + prediction - intersection))


def mean_of(values: Array) -> Array:
    """Return the mean over the last axis, ignoring NaN; if all values are NaN, the mean is NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1))


def by_group(counts: Array, groups: Sequence[str]) -> Array:
    """Sum pixel counts over each group of images; ``groups`` names the group of each image.  (N, 3, K) -> (G, 3, K)"""
    indices = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    total = np.zeros((len(indices), *counts.shape[1:]))
    np.add.at(total, [indices[name] for name in groups], counts)
    return total


def interval(counts: Array, groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """Return the lower and upper limit of the 95 % bootstrap interval of the mIoU; NaN for fewer than two groups.

    Whole groups of images are drawn with replacement; ``groups`` names the group of each image.  (N, 3, K)
    """
    summed = by_group(counts, groups)
    if len(summed) < 2:
        return float("nan"), float("nan")
    return _percentiles(mean_of(iou_of(_resampled(summed, seed))))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of the IoU of two models on the same images.

    Each array has one value for each class and, at the end, one for the mean IoU.  ``first`` and ``second`` are the IoU
    of the first and the second model.  ``low`` and ``high`` are the limits of the 95 % bootstrap interval of the
    difference, second minus first.  ``p`` comes from a permutation test: the probability of a difference at least as
    large if the two models were equally good.  The p-values of the classes are corrected by Holm's method.  (K + 1,)
    """

    first: Array
    second: Array
    low: Array
    high: Array
    p: Array

    @property
    def difference(self) -> Array:
        """IoU of the second model minus IoU of the first model, (K + 1,)."""
        return self.second - self.first


def compare(first: Array, second: Array, groups: Sequence[str], seed: int = 0) -> Comparison:
    """Compare two models by their pixel counts on the same images.  (N, 3, K), (N, 3, K)

    ``groups`` names the group of each image; whole groups are drawn and exchanged.  With fewer than two groups,
    ``low``, ``high`` and ``p`` of the result are NaN.
    """
    a = by_group(first, groups)
    b = by_group(second, groups)
    one = _with_mean(iou_of(a.sum(axis=0)))
    two = _with_mean(iou_of(b.sum(axis=0)))
    if len(a) < 2:
        unknown = np.full(len(one), np.nan)
        return Comparison(one, two, unknown, unknown, unknown)
    spread = _with_mean(iou_of(_resampled(b, seed))) - _with_mean(iou_of(_resampled(a, seed)))
    swapped = np.random.default_rng(seed).random((SAMPLES, len(a))) < 0.5
    moved = np.tensordot(swapped.astype(np.float64), b - a, axes=1)
    chance = _with_mean(iou_of(b.sum(axis=0) - moved)) - _with_mean(iou_of(a.sum(axis=0) + moved))
    with np.errstate(invalid="ignore"):
        beyond = (np.abs(chance) >= np.abs(two - one) - 1e-12).sum(axis=0)
    p = np.where(np.isnan(two - one), np.nan, (1 + beyond) / (1 + SAMPLES))
    low, high = np.array([_percentiles(column) for column in spread.T]).T
    return Comparison(one, two, low, high, np.append(holm(p[:-1]), p[-1]))


def holm(p: Array) -> Array:
    """Correct the p-values of several tests by Holm's method; NaN means that there was no test, and stays NaN.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.full(len(p), np.nan)
    tested = [int(k) for k in np.argsort(p) if not np.isnan(p[k])]
    largest = 0.0
    for rank, k in enumerate(tested):
        largest = max(largest, min(1.0, float(p[k]) * (len(tested) - rank)))
        corrected[k] = largest
    return corrected


def _resampled(summed: Array, seed: int) -> Array:
    """Draw bootstrap samples of the groups; returns the summed counts of each sample.  (G, 3, K) -> (SAMPLES, 3, K)"""
    count = len(summed)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=SAMPLES)
    return np.tensordot(drawn.astype(np.float64), summed, axes=1)


def _with_mean(iou: Array) -> Array:
    return np.concatenate([iou, mean_of(iou)[..., None]], axis=-1)


def _percentiles(values: Array) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
