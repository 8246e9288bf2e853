"""Samples, the label table, and the one Dataset class."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from segformer.config import IGNORE_INDEX, Color
from segformer.data.images import read_image, read_mask

Array = NDArray[Any]
INVALID = -1  # in a label table: a raw id that must not occur
MAX_CLASSES = IGNORE_INDEX
Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class Sample(Protocol):
    """An image with its mask, not read yet."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    def read(self) -> tuple[Array, Array]:
        """Return the image (H, W, C) uint8 and the mask (H, W) of raw label ids."""
        ...


@dataclass(frozen=True)
class Pair:
    """An image file with its mask file."""

    name: str
    image: Path
    mask: Path

    def read(self) -> tuple[Array, Array]:
        """Decode both; raises a ValueError that names the files where their sizes differ."""
        image, mask = read_image(self.image), read_mask(self.mask)
        if image.shape[:2] != mask.shape:
            raise ValueError(
                f"{self.mask}: expected a mask of its image's size {image.shape[0]} x {image.shape[1]} "
                f"(height x width), got {mask.shape[0]} x {mask.shape[1]}; image: {self.image}"
            )
        return image, mask


@dataclass(frozen=True)
class LabelTable:
    """One explicit raw id -> class table of a data set, applied once, as a look-up."""

    values: Array
    """(max raw id + 1,) int16: class index, IGNORE_INDEX or INVALID."""

    @classmethod
    def identity(cls, num_classes: int, ignore_index: int = IGNORE_INDEX) -> "LabelTable":
        """Ids 0 ... K-1 are the classes, ``ignore_index`` is ignored, all others are errors."""
        if num_classes > MAX_CLASSES:
            raise ValueError(f"at most {MAX_CLASSES} classes are supported, got {num_classes}")
        values = np.full(max(num_classes, ignore_index) + 1, INVALID, dtype=np.int16)
        values[:num_classes] = np.arange(num_classes)
        values[ignore_index] = IGNORE_INDEX
        return cls(values)

    def apply(self, mask: Array, name: object) -> Array:
        """Raw ids (H, W) -> class indices (H, W) uint8; raises a ValueError that names the mask and the id."""
        mask = mask.astype(np.int32)
        inside = mask.clip(0, len(self.values) - 1)
        classes = self.values[inside]
        wrong = (classes == INVALID) | (mask != inside)
        if wrong.any():
            raise ValueError(self._message(mask, wrong, name))
        return np.asarray(classes, dtype=np.uint8)

    def _message(self, mask: Array, wrong: Array, name: object) -> str:
        known = np.flatnonzero((self.values != INVALID) & (self.values != IGNORE_INDEX))
        ignored = np.flatnonzero(self.values == IGNORE_INDEX)
        found = np.unique(mask[wrong])
        return (
            f"{name}: expected labels {known.min()}-{known.max()} or {', '.join(map(str, ignored))} (ignored), "
            f"got {', '.join(map(str, found[:5]))} at {int(wrong.sum())} pixels; correct the mask or the classes"
        )


@dataclass(frozen=True)
class DataSource:
    """A data set as found: its classes and the samples of each split."""

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    table: LabelTable
    splits: Mapping[str, Sequence[Sample]] = field(repr=False)
    notes: tuple[str, ...] = ()
    """What a user should know about how it was read."""

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split; raises a ValueError that names the splits there are."""
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}")
        return self.splits[split]


class SegmentationDataset(Dataset[tuple[Tensor, Tensor]]):
    """Samples of one split as tensors: image (C, H, W) uint8 and mask (H, W) uint8 class indices, transformed.

    An item is asked for by (epoch, index): the transform's random numbers are a function of (seed, epoch, index).
    """

    def __init__(
        self, samples: Sequence[Sample], table: LabelTable, transform: Transform | None, seed: int = 0
    ) -> None:
        self.samples = samples
        self.table = table
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        sample = self.samples[index]
        pixels, raw = sample.read()
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        mask = torch.from_numpy(self.table.apply(raw, getattr(sample, "mask", sample.name)))
        if self.transform is None:
            return image, mask
        return self.transform(image, mask, generator_of(self.seed, epoch, index))


def generator_of(*key: int) -> torch.Generator:
    """Return a random generator that is a function of the key, the same in every process."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """Mix integers, 0 or more, into a seed; neighbouring keys give unrelated ones, and so do keys of other lengths."""
    (state,) = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return int(state) >> 1  # torch takes 63 bits
