"""Contents of a data set: number and sizes of images, pixels of each class, and channel statistics."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segformer.config import IGNORE_INDEX, Size
from segformer.data.doctor.facts import SampleFacts
from segformer.data.doctor.labels import Labels

RARE = 0.01  # share of the labeled pixels
WEIGHTS = (0.1, 10.0)  # bounds of a class weight


@dataclass(frozen=True)
class Split:
    """Contents of a split; ``class_pixels`` is empty if no mask was decoded."""

    num_images: int
    sizes: dict[Size, int]
    """Number of images of each (height, width), most frequent first."""
    channels: dict[str, int]
    """Number of images of each kind of channels, such as RGB or gray, most frequent first."""
    class_pixels: tuple[int, ...]
    """Number of pixels of each class."""
    ignored_pixels: int
    """Number of ignored pixels."""

    def shares(self) -> tuple[float, ...]:
        """Return the share of each class in the labeled pixels."""
        return tuple(pixels / max(sum(self.class_pixels), 1) for pixels in self.class_pixels)

    def to_json(self) -> dict[str, Any]:
        """Return the split as a JSON object."""
        sizes = [{"height": height, "width": width, "num_images": n} for (height, width), n in self.sizes.items()]
        channels = [{"kind": kind, "num_images": n} for kind, n in self.channels.items()]
        return asdict(self) | {"sizes": sizes, "channels": channels}


def count_split(samples: Sequence[SampleFacts], split: str, labels: Labels) -> Split:
    """Count the images of a split, their sizes, their kinds of channels, and the pixels of each class."""
    own = [sample for sample in samples if sample.split == split and sample.image]
    sizes = dict(Counter(sample.size for sample in own if sample.size).most_common())
    kinds = dict(Counter(sample.channels for sample in own if sample.channels).most_common())
    if labels.table is None or not any(sample.ids is not None for sample in own):
        return Split(len(own), sizes, kinds, (), 0)
    pixels = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
    for sample in own:
        if sample.ids is not None and sample.counts is not None:
            classes = labels.table.look_up(sample.ids)
            np.add.at(pixels, classes[classes >= 0], sample.counts[classes >= 0])
    class_pixels = tuple(pixels[: len(labels.classes)].tolist())
    return Split(len(own), sizes, kinds, class_pixels, int(pixels[IGNORE_INDEX]))


def channel_statistics(samples: Sequence[SampleFacts]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the means and the standard deviations of the channels over all pixels.

    Both tuples are empty if nothing was decoded or if the images differ in their number of channels.
    """
    moments = [sample.moments for sample in samples if sample.moments is not None]
    if len({parts.shape for parts in moments}) != 1:
        return (), ()
    number, total, squares = np.sum(moments, axis=0)
    mean = total / number
    std = np.sqrt((squares / number - mean**2).clip(1e-12))
    return tuple(mean.tolist()), tuple(std.tolist())


def five_digits(values: Sequence[float]) -> str:
    """Write numbers with five significant digits, separated by spaces."""
    return " ".join(f"{value:.5g}" for value in values)


def balance(split: Split | None, classes: Sequence[str]) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Return class weights for a split, and the names of its rare classes (below 1 % of the labeled pixels).

    The weights are None if there are fewer than two classes or no labeled pixels.
    """
    if split is None or not sum(split.class_pixels) or len(split.class_pixels) < 2:
        return None, ()
    rare = tuple(name for name, share in zip(classes, split.shares(), strict=True) if 0 < share < RARE)
    return balanced_weights(split.class_pixels), rare


def balanced_weights(pixels: Sequence[int]) -> tuple[float, ...]:
    """Return 1 / sqrt(share of the pixels) of each class, scaled to a mean of 1 and then clipped to WEIGHTS.

    Classes that never occur get the weight 1.

    >>> balanced_weights([90, 10, 0])
    (0.5, 1.5, 1.0)
    """
    counts = np.array(pixels, dtype=np.float64)
    occurs = counts > 0
    weights = np.ones(len(counts))
    raw = 1 / np.sqrt(counts[occurs])
    weights[occurs] = (raw / raw.mean()).clip(*WEIGHTS).round(2)
    return tuple(weights.tolist())
