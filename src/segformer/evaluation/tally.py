"""Counts of an evaluation: sums over images, independent of their order, of processes and of interruptions."""

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

SAMPLED = 1 << 16  # pixels of a split that are drawn for the calibration
FEWEST, MOST = 64, 4096  # pixels of an image that are drawn for the calibration


@dataclass(eq=False)
class Tally:
    """Counts over N images of K classes; the counts of different images may be added.

    The middle axis of ``images`` and ``borders`` holds intersection, label and prediction.  Calibration is counted
    separately for images with even and with odd indices.
    """

    confusion: Array
    """(K, K) pixels: rows are labels, columns are predictions."""
    images: Array
    """(N, 3, K) pixels of each image."""
    borders: Array
    """(N, 3, K) pixels of each image near the border of a class."""
    nll: Array
    """(2, T) summed negative log-likelihood at each temperature."""
    bins: Array
    """(2, T, BINS, 3) pixels, summed confidence, right pixels."""
    done: Array
    """(N,) 1 for each image that is counted."""

    @classmethod
    def empty(cls, num_images: int, num_classes: int) -> "Tally":
        """Return an empty tally."""
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
        """Undo ``to_arrays``; raises a UserError that names ``path`` unless all arrays have the shapes of ``like``."""
        for name, expected in like.to_arrays().items():
            if name not in arrays or arrays[name].shape != expected.shape:
                raise UserError(f"{path}: damaged, expected the counts of an evaluation; remove its folder")
        return cls(**{name: arrays[name] for name in like.to_arrays()})

    def add(self, index: int, prediction: Tensor, label: Tensor, sampled: tuple[Tensor, Tensor] | None = None) -> None:
        """Count one image: class indices (H, W) against labels (H, W) uint8.

        ``sampled`` holds logits (n, K) and labels (n,) of some pixels, for the calibration.
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
        # One update of all sums: an interruption finds all of them with this image, or none.
        vars(self).update(confusion=self.confusion + counts, nll=nll, bins=bins, done=done)

    def sum_over_processes(self, device: torch.device) -> None:
        """Add up the counts of all processes of a torch.distributed group, each of different images."""
        for field in fields(self):
            total = torch.from_numpy(getattr(self, field.name)).to(device)
            torch.distributed.all_reduce(total)
            setattr(self, field.name, total.cpu().numpy())

    def to_arrays(self) -> dict[str, Array]:
        """Return its arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def count_pixels(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Count pixels by label (rows) and prediction (columns), without ignored ones.  2 x (H, W) -> (K, K)"""
    pairs = torch.add(prediction, label, alpha=num_classes)  # pairs of ignored pixels lie beyond all others
    counts = torch.bincount(pairs.flatten(), minlength=num_classes**2)
    return counts[: num_classes**2].view(num_classes, num_classes)


def count_borders(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Count pixels near borders: in both maps, in the label, in the prediction.  2 x (H, W) uint8 -> (3, K)"""
    of_label = boundary(label)
    of_prediction = boundary(prediction)
    both = of_label & of_prediction & (label == prediction)
    parts = ((label, both), (label, of_label), (prediction, of_prediction))
    kept = (part.masked_fill(~where, IGNORE_INDEX).flatten() for part, where in parts)
    return torch.stack([torch.bincount(part, minlength=IGNORE_INDEX + 1)[:num_classes] for part in kept])


def sampled_pixels(label: Tensor, num_images: int, generator: torch.Generator) -> Tensor:
    """Draw labeled pixels for the calibration, about 65,000 over all images.  -> (n,), numbered row by row"""
    labeled = (label.flatten() != IGNORE_INDEX).nonzero()[:, 0]
    count = min(max(SAMPLED // num_images, FEWEST), MOST)
    return labeled[torch.randint(len(labeled), (count,), generator=generator)] if len(labeled) else labeled


def group_names(names: Sequence[str], pattern: str) -> list[str]:
    """Return the name of each image's sequence: the part of the image's name that ``pattern`` matches at its start.

    An image whose name does not match is a sequence of its own.  Raises a UserError if ``pattern`` is not a regular
    expression.
    """
    try:
        found = [re.match(pattern, name) if pattern else None for name in names]
    except re.error as error:
        raise UserError(f"sequence must be a regular expression, got '{pattern}' ({error})") from error
    return [match.group() if match else name for match, name in zip(found, names, strict=True)]
