"""Whether a probability means what it says: expected calibration error, and the temperature that mends it.

Guo et al. 2017.  Counts are additive over images and processes, so that nothing but them is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segformer.arrays import Array

TEMPERATURES = np.geomspace(1 / 4, 4, 41)  # 7 % apart; the middle one is 1
ONE = len(TEMPERATURES) // 2
BINS = 15  # of confidence, as published


def count(scores: Tensor, labels: Tensor) -> tuple[Array, Array]:
    """What pixels (N, K) with labels (N,) add, for every temperature.

    The summed negative log-likelihood (T,), and for each bin of confidence (T, BINS, 3): pixels, their summed
    confidence, how many of them are right.
    """
    temperatures = torch.from_numpy(TEMPERATURES).to(scores)[:, None]
    right = (scores.argmax(dim=1) == labels).to(scores)
    best, own = scores.amax(dim=1) / temperatures, scores.gather(1, labels[:, None])[:, 0] / temperatures  # (T, N)
    normalizer = torch.logsumexp(scores / temperatures[:, :, None], dim=2)
    confidence = (best - normalizer).exp().clamp(max=1.0)
    place = (confidence * BINS).ceil().long().sub(1).clamp(min=0)  # (0, 1/15], (1/15, 2/15], ...
    place += BINS * torch.arange(len(temperatures), device=scores.device)[:, None]
    columns = (torch.ones_like(confidence), confidence, right.expand_as(confidence))
    bins = [torch.bincount(place.flatten(), column.double().flatten(), BINS * len(temperatures)) for column in columns]
    losses = (normalizer - own).double().sum(dim=1)
    return losses.cpu().numpy(), torch.stack(bins, dim=1).view(len(temperatures), BINS, 3).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration before and after a temperature that was fitted on one half of the images, seen on the other."""

    temperature: float
    ece: float
    ece_after: float
    nll: float
    nll_after: float
    reliability: Array
    """(BINS, 3): pixels, their mean confidence, the share of them that is right; NaN for an empty bin."""
    reliability_after: Array

    @classmethod
    def of(cls, nll: Array, bins: Array) -> "Calibration":
        """Fit on the first half (2, T) and (2, T, BINS, 3), and look at the second (of one image alone: the first)."""
        pixels = bins[..., 0].sum(axis=(1, 2))
        fit, seen = (0, 1) if pixels.all() else (int(pixels[0] == 0), int(pixels[0] == 0))
        best = int(nll[fit].argmin())
        number = max(float(bins[seen, ONE, :, 0].sum()), 1.0)
        return cls(
            float(TEMPERATURES[best]),
            expected_error(bins[seen, ONE]),
            expected_error(bins[seen, best]),
            float(nll[seen, ONE] / number),
            float(nll[seen, best] / number),
            reliability(bins[seen, ONE]),
            reliability(bins[seen, best]),
        )

    def to_json(self) -> Mapping[str, Any]:
        """Return the figures without the curves."""
        return {
            "ECE": self.ece,
            "NLL": self.nll,
            "temperature": self.temperature,
            "ECE with temperature": self.ece_after,
            "NLL with temperature": self.nll_after,
        }


def expected_error(bins: Array) -> float:
    """Mean over pixels of how far a bin's confidence lies from its accuracy.  (BINS, 3) -> 0-1"""
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / max(bins[:, 0].sum(), 1.0))


def reliability(bins: Array) -> Array:
    """Pixels, mean confidence and accuracy of each bin.  (BINS, 3) -> (BINS, 3)"""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.column_stack([bins[:, 0], bins[:, 1:] / bins[:, :1]])
