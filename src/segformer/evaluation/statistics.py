"""How sure a figure is: bootstrap over images or sequences, and the comparison of two models on the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segformer.arrays import Array

SAMPLES = 2000
LEVEL = 0.95


def iou_of(counts: Array) -> Array:
    """IoU of each class from pixel counts of intersection, label and prediction; NaN where it occurs in neither.

    (..., 3, K) -> (..., K)
    """
    intersection, label, prediction = (counts[..., row, :].astype(np.float64) for row in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(intersection / (label + prediction - intersection))


def mean_of(values: Array) -> Array:
    """Mean over the last axis without the NaNs; NaN where there is nothing else."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1))


def by_group(counts: Array, groups: Sequence[str]) -> Array:
    """Sum the counts (N, 3, K) of the images of each group (N names).  -> (G, 3, K) float64"""
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    total = np.zeros((len(names), *counts.shape[1:]))
    np.add.at(total, [names[name] for name in groups], counts)
    return total


def interval(counts: Array, groups: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mIoU, images (or sequences of them) drawn with replacement.

    ``counts`` (N, 3, K); NaN where there are fewer than two groups.
    """
    summed = by_group(counts, groups)
    if len(summed) < 2:
        return float("nan"), float("nan")
    return _percentiles(mean_of(iou_of(_resampled(summed, seed))))


@dataclass(frozen=True, eq=False)
class Comparison:
    """IoU of a second model less that of a first, on the same images: of each class, and last their mean.

    ``low`` and ``high`` bound each difference at 95 % (bootstrap); ``p`` is the chance of one as large if the two were
    exchangeable (permutation of the models within images), over the classes corrected after Holm.
    """

    first: Array
    second: Array
    low: Array
    high: Array
    p: Array

    @property
    def difference(self) -> Array:
        """Second less first, (K + 1,)."""
        return self.second - self.first


def compare(first: Array, second: Array, groups: Sequence[str], seed: int = 0) -> Comparison:
    """Compare two models by their counts (N, 3, K) on the same images; p is NaN with fewer than two groups."""
    a, b = by_group(first, groups), by_group(second, groups)
    one, two = _with_mean(iou_of(a.sum(axis=0))), _with_mean(iou_of(b.sum(axis=0)))
    nothing = np.full(len(one), np.nan)
    if len(a) < 2:
        return Comparison(one, two, nothing, nothing, nothing)
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
    """Correct the p-values of several tests (NaN: no test) after Holm.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.full(len(p), np.nan)
    tested = [int(k) for k in np.argsort(p) if not np.isnan(p[k])]
    largest = 0.0
    for place, k in enumerate(tested):
        largest = max(largest, min(1.0, float(p[k]) * (len(tested) - place)))
        corrected[k] = largest
    return corrected


def _resampled(summed: Array, seed: int) -> Array:
    """Counts of samples of as many groups (G, 3, K), drawn with replacement.  -> (SAMPLES, 3, K)"""
    number = len(summed)
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=SAMPLES)
    return np.tensordot(drawn.astype(np.float64), summed, axes=1)


def _with_mean(iou: Array) -> Array:
    return np.concatenate([iou, mean_of(iou)[..., None]], axis=-1)


def _percentiles(values: Array) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
