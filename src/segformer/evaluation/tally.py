"""What is counted while a split is evaluated: sums that any order, process or interruption leaves the same."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX
from segformer.errors import UserError
from segformer.evaluation import calibration
from segformer.evaluation.boundary import boundary

SAMPLED = 1 << 16  # pixels of a split whose calibration is looked at
FEWEST, MOST = 64, 4096  # of an image


@dataclass(eq=False)
class Tally:
    """Counts over N images of K classes; those of different images may be added.

    The middle axis of ``images`` and ``borders`` is: intersection, label, prediction.  Calibration is kept for images
    of even and of odd number apart.
    """

    confusion: Array
    """(K, K) pixels: rows are labels, columns predictions."""
    images: Array
    """(N, 3, K) pixels of each image."""
    borders: Array
    """(N, 3, K) pixels of each image near the border of a class."""
    nll: Array
    """(2, T) summed negative log-likelihood at each temperature."""
    bins: Array
    """(2, T, BINS, 3) pixels, summed confidence, pixels that are right."""
    done: Array
    """(N,) whether an image is counted."""

    @classmethod
    def empty(cls, num_images: int, num_classes: int) -> "Tally":
        """Return one of nothing."""
        temperatures = len(calibration.TEMPERATURES)
        return cls(
            confusion=np.zeros((num_classes, num_classes), dtype=np.int64),
            images=np.zeros((num_images, 3, num_classes), dtype=np.int64),
            borders=np.zeros((num_images, 3, num_classes), dtype=np.int64),
            nll=np.zeros((2, temperatures)),
            bins=np.zeros((2, temperatures, calibration.BINS, 3)),
            done=np.zeros(num_images, dtype=np.int64),
        )

    def add(self, index: int, prediction: Tensor, label: Tensor) -> None:
        """Count one image: class indices (H, W) against labels (H, W) uint8."""
        num_classes = len(self.confusion)
        counts = count_pixels(prediction, label, num_classes).cpu().numpy()
        self.confusion += counts
        self.images[index] = [np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)]
        seen = prediction.to(label.dtype).masked_fill(label == IGNORE_INDEX, IGNORE_INDEX)
        self.borders[index] = count_borders(seen, label, num_classes).cpu().numpy()
        self.done[index] = 1

    def add_scores(self, index: int, scores: Tensor, labels: Tensor) -> None:
        """Count the calibration of some pixels of an image: scores (n, K), labels (n,)."""
        nll, bins = calibration.count(scores, labels)
        self.nll[index % 2] += nll
        self.bins[index % 2] += bins

    def sum_over_processes(self, device: torch.device) -> None:
        """Add up what the processes of a torch.distributed group have counted of different images."""
        for field in fields(self):
            total = torch.from_numpy(getattr(self, field.name)).to(device)
            torch.distributed.all_reduce(total)
            setattr(self, field.name, total.cpu().numpy())

    def to_arrays(self) -> Mapping[str, Array]:
        """Return its arrays by name, as the constructor takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def count_pixels(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Pixel counts (K, K), rows labels, columns predictions; ignored pixels are left out.  2 x (H, W)"""
    pairs = torch.add(prediction, label, alpha=num_classes)  # those of ignored pixels lie beyond all others
    counts = torch.bincount(pairs.flatten(), minlength=num_classes**2)
    return counts[: num_classes**2].view(num_classes, num_classes)


def count_borders(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Pixels near borders, in both, of the label, of the prediction: (3, K), of class indices (H, W) uint8."""
    of_label, of_prediction = boundary(label), boundary(prediction)
    both = of_label & of_prediction & (label == prediction)
    parts = ((label, both), (label, of_label), (prediction, of_prediction))
    kept = (part.masked_fill(~where, IGNORE_INDEX).flatten() for part, where in parts)
    return torch.stack([torch.bincount(part, minlength=IGNORE_INDEX + 1)[:num_classes] for part in kept])


def sampled_pixels(label: Tensor, num_images: int, generator: torch.Generator) -> Tensor:
    """Numbers (n,) of labelled pixels, row by row, drawn for the calibration: all images together give about 65,000."""
    labelled = (label.flatten() != IGNORE_INDEX).nonzero()[:, 0]
    number = min(max(SAMPLED // num_images, FEWEST), MOST)
    return labelled[torch.randint(len(labelled), (number,), generator=generator)] if len(labelled) else labelled


def group_names(names: Sequence[str], pattern: str) -> list[str]:
    """Sequence that each image belongs to: what the pattern matches at the start of its name, else the name.

    Raises a UserError where the pattern is none.
    """
    try:
        found = [re.match(pattern, name) if pattern else None for name in names]
    except re.error as error:
        raise UserError(f"sequence must be a regular expression, got '{pattern}' ({error})") from error
    return [match.group() if match else name for match, name in zip(found, names, strict=True)]
