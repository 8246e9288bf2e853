"""Pixel counts of an evaluation.  They do not depend on image order, number of processes or interruptions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX
from segformer.errors import UserError
from segformer.evaluation import calibration
from segformer.evaluation.boundary import boundary

SAMPLED = 1 << 16  # number of pixels per split that are drawn for the calibration, approximately
FEWEST, MOST = 64, 4096  # limits of the number of pixels per image that are drawn for the calibration


@dataclass(eq=False)
class Tally:
    """Pixel counts of N images with K classes; for the calibration, also sums at each of T temperatures.

    Images that have not been counted contribute 0, so tallies of different images can be added.  The middle axis of
    ``images`` and ``borders`` is (intersection, label, prediction).  The first axis of ``nll`` and ``bins`` is
    (images with even indices, images with odd indices); these two halves are for fitting and measuring.
    """

    confusion: Array
    """Number of pixels of each pair of label (row) and prediction (column).  (K, K)"""
    images: Array
    """For each image and class, the number of pixels in intersection, label and prediction.  (N, 3, K)"""
    borders: Array
    """Like ``images``, but only pixels near a border between classes are counted.  (N, 3, K)"""
    nll: Array
    """Negative log-likelihood in each half at each temperature, summed over the sampled pixels.  (2, T)"""
    bins: Array
    """Number of sampled pixels, summed confidence and number of correct pixels of each bin.  (2, T, BINS, 3)"""
    done: Array
    """1 for each image that has been counted, otherwise 0.  (N,)"""

    @classmethod
    def empty(cls, num_images: int, num_classes: int) -> "Tally":
        """Return a tally in which no image has been counted."""
        temperatures = len(calibration.TEMPERATURES)
        return cls(
            confusion=np.zeros((num_classes, num_classes), dtype=np.int64),
            images=np.zeros((num_images, 3, num_classes), dtype=np.int64),
            borders=np.zeros((num_images, 3, num_classes), dtype=np.int64),
            nll=np.zeros((2, temperatures)),
            bins=np.zeros((2, temperatures, calibration.BINS, 3)),
            done=np.zeros(num_images, dtype=np.int64),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], path: Path, like: "Tally") -> "Tally":
        """Build a tally from stored arrays that ``to_arrays`` returned; ``path`` is the file that they were read from.

        Raises a UserError that names this file if an array is missing or differs in shape from the tally ``like``.
        """
        for name, expected in like.to_arrays().items():
            if name not in arrays or arrays[name].shape != expected.shape:
                raise UserError(f"{path}: damaged, expected the counts of an evaluation; delete its folder")
        return cls(**{name: arrays[name] for name in like.to_arrays()})

    def add(self, index: int, prediction: Tensor, label: Tensor, sampled: tuple[Tensor, Tensor] | None = None) -> None:
        """Count the pixels of image number ``index``, given its prediction and label.  (H, W), (H, W) uint8

        ``sampled`` is (logits, labels) of a sample of the image's pixels, for the calibration.  (n, K), (n,)
        """
        num_classes = len(self.confusion)
        counts = count_pixels(prediction, label, num_classes).cpu().numpy()
        seen = prediction.to(label.dtype).masked_fill(label == IGNORE_INDEX, IGNORE_INDEX)
        self.images[index] = [np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)]
        self.borders[index] = count_borders(seen, label, num_classes).cpu().numpy()
        half = index % 2
        nll = self.nll.copy()
        bins = self.bins.copy()
        done = self.done.copy()
        if sampled is not None:
            loss, binned = calibration.count(*sampled)
            nll[half] += loss
            bins[half] += binned
        done[index] = 1
        # All sums are updated at once, so that an interruption leaves either all of them with this image or none.
        vars(self).update(confusion=self.confusion + counts, nll=nll, bins=bins, done=done)

    def sum_over_processes(self, device: torch.device) -> None:
        """Replace the counts by their sum over all processes of a torch.distributed group.

        The processes must have counted different images.
        """
        for field in fields(self):
            total = torch.from_numpy(getattr(self, field.name)).to(device)
            torch.distributed.all_reduce(total)
            setattr(self, field.name, total.cpu().numpy())

    def to_arrays(self) -> dict[str, Array]:
        """Return all arrays of counts by field name, so that they can be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def count_pixels(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Count the labeled pixels of each pair of label (row) and prediction (column).  2 x (H, W) -> (K, K)"""
    pairs = torch.add(prediction, label, alpha=num_classes)  # ignored pixels get the largest numbers, which are cut off
    counts = torch.bincount(pairs.flatten(), minlength=num_classes**2)
    return counts[: num_classes**2].view(num_classes, num_classes)


def count_borders(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Count each class's pixels near borders in intersection, label and prediction.  2 x (H, W) uint8 -> (3, K)"""
    of_label = boundary(label)
    of_prediction = boundary(prediction)
    both = of_label & of_prediction & (label == prediction)
    parts = ((label, both), (label, of_label), (prediction, of_prediction))
    kept = (part.masked_fill(~where, IGNORE_INDEX).flatten() for part, where in parts)
    return torch.stack([torch.bincount(part, minlength=IGNORE_INDEX + 1)[:num_classes] for part in kept])


def sampled_pixels(label: Tensor, num_images: int, generator: torch.Generator) -> Tensor:
    """Draw random labeled pixels of an image for the calibration.

    The number is the same for each image, from 64 to 4096, and within these limits such that a split has about 65,000
    pixels in total.  Returns the indices of the pixels in the flattened image.  (H, W) -> (n,)
    """
    labeled = (label.flatten() != IGNORE_INDEX).nonzero()[:, 0]
    count = min(max(SAMPLED // num_images, FEWEST), MOST)
    return labeled[torch.randint(len(labeled), (count,), generator=generator)] if len(labeled) else labeled


def group_names(names: Sequence[str], pattern: str) -> list[str]:
    """Return the name of each image's sequence: the start of the image's name that ``pattern`` matches.

    An image whose name does not match gets its own name.  Raises a UserError if ``pattern`` is not a regular
    expression.
    """
    try:
        found = [re.match(pattern, name) if pattern else None for name in names]
    except re.error as error:
        raise UserError(f"sequence must be a regular expression, got '{pattern}' ({error})") from error
    return [match.group() if match else name for match, name in zip(found, names, strict=True)]
