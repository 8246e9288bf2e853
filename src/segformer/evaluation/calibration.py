"""The expected calibration error of predicted probabilities, and the temperature that lowers it (Guo et al. 2017).

The error and the temperature are computed from counts.  Counts can be added over images and processes, so the logits
of the model need not be stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segformer.arrays import Array

TEMPERATURES = np.geomspace(1 / 4, 4, 41)  # each is 7 % higher than the one before
ONE = len(TEMPERATURES) // 2  # index of the temperature 1
BINS = 15  # ranges of confidence of equal width, as in the publication


def count(scores: Tensor, labels: Tensor) -> tuple[Array, Array]:
    """Return (summed negative log-likelihood, bins of confidence) of pixels, for each of the T temperatures.

    A pixel's confidence is the probability of its predicted class.  Each bin contains the number of pixels whose
    confidence is in a certain range, their summed confidence, and the number of those that are predicted correctly.
    Logits (N, K), labels (N,) -> (T,), (T, BINS, 3)
    """
    temperatures = torch.from_numpy(TEMPERATURES).to(scores)[:, None]
    right = (scores.argmax(dim=1) == labels).to(scores)
    best = scores.amax(dim=1) / temperatures  # (T, N)
    own = scores.gather(1, labels[:, None])[:, 0] / temperatures
    normalizer = torch.logsumexp(scores / temperatures[:, :, None], dim=2)
    confidence = (best - normalizer).exp().clamp(max=1.0)
    index = (confidence * BINS).ceil().long().sub(1).clamp(min=0)  # bins (0, 1/15], (1/15, 2/15], ...
    index += BINS * torch.arange(len(temperatures), device=scores.device)[:, None]
    columns = (torch.ones_like(confidence), confidence, right.expand_as(confidence))
    bins = [torch.bincount(index.flatten(), column.double().flatten(), BINS * len(temperatures)) for column in columns]
    losses = (normalizer - own).double().sum(dim=1)
    return losses.cpu().numpy(), torch.stack(bins, dim=1).view(len(temperatures), BINS, 3).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of a model before and after its logits are divided by a temperature.

    The temperature is fitted on one half of the images; all other fields are measured on the other half.  ``ece`` is
    the expected calibration error, and ``nll`` is the mean negative log-likelihood.  Fields whose names end in
    ``_after`` are measured after the division.
    """

    temperature: float
    ece: float
    ece_after: float
    nll: float
    nll_after: float
    reliability: Array
    """Number of pixels, mean confidence and accuracy of each bin.  An empty bin has 0, NaN and NaN.  (BINS, 3)"""
    reliability_after: Array

    @classmethod
    def from_counts(cls, nll: Array, bins: Array) -> "Calibration":
        """Fit the temperature on one half of the images and measure on the other half.  (2, T), (2, T, BINS, 3)

        Index 0 of the first axis is the half for the fit, index 1 the half for the measurement.  If one half has no
        pixels, the half with pixels is used for the fit and for the measurement.
        """
        pixels = bins[..., 0].sum(axis=(1, 2))
        fit, seen = (0, 1) if pixels.all() else (int(pixels[0] == 0), int(pixels[0] == 0))
        best = int(nll[fit].argmin())
        count = max(float(bins[seen, ONE, :, 0].sum()), 1.0)
        return cls(
            float(TEMPERATURES[best]),
            expected_error(bins[seen, ONE]),
            expected_error(bins[seen, best]),
            float(nll[seen, ONE] / count),
            float(nll[seen, best] / count),
            reliability(bins[seen, ONE]),
            reliability(bins[seen, best]),
        )

    def to_json(self) -> Mapping[str, Any]:
        """Return the temperature and the errors, without the reliability curves."""
        return {
            "ece": self.ece,
            "nll": self.nll,
            "temperature": self.temperature,
            "ece_after": self.ece_after,
            "nll_after": self.nll_after,
        }


def expected_error(bins: Array) -> float:
    """Return the expected calibration error, from 0 to 1.

    It is the mean over all pixels of the absolute difference between the mean confidence and the accuracy of the
    pixel's bin.  ``bins`` contains the sums that ``count`` returns for one temperature.  (BINS, 3)
    """
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / max(bins[:, 0].sum(), 1.0))


def reliability(bins: Array) -> Array:
    """Compute number of pixels, mean confidence and accuracy of each bin from its sums.  (BINS, 3) -> (BINS, 3)"""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.column_stack([bins[:, 0], bins[:, 1:] / bins[:, :1]])
