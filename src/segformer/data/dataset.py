"""Data sets: their classes, their splits, and their samples, which are read only when they are needed."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from segformer.arrays import Array
from segformer.config import Color
from segformer.data.images import RGB, Decoding, read_image
from segformer.data.label_table import LabelTable
from segformer.data.masks import read_mask
from segformer.errors import UserError


class Sample(Protocol):
    """An image with its mask; neither is in memory until ``read`` is called."""

    @property
    def name(self) -> str:
        """Name of the sample, as messages show it."""
        ...

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image, possibly at a reduced size, and the mask of raw label ids.

        -> (h, w, C) uint8 or float32, (H, W)
        """
        ...


@dataclass(frozen=True)
class Pair:
    """An image file with its mask file."""

    name: str
    image: Path
    mask: Path

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode image and mask; raises a UserError that names both files if their sizes differ."""
        image = read_image(self.image, decoding)
        mask = read_mask(self.mask)
        check_sizes(image, mask, self, decoding)
        return image, mask


class Files(Protocol):
    """A sample that has an image file and a label file, for example a mask or polygons."""

    @property
    def image(self) -> Path:
        """The image file."""
        ...

    @property
    def mask(self) -> Path:
        """The file of the labels."""
        ...


def check_sizes(image: Array, mask: Array, files: Files, decoding: Decoding = RGB) -> None:
    """Raise a UserError that names both files if an image and its mask differ in size.  (H, W, ...), (H, W)

    If ``decoding.enough`` is set, the image may also have 1/2, 1/4 or 1/8 of the mask's size.
    """
    reductions = (1,) if decoding.enough is None else (1, 2, 4, 8)
    if image.shape[:2] not in [tuple(-(-side // factor) for side in mask.shape) for factor in reductions]:
        raise UserError(
            f"{files.mask}: expected a mask of its image's size {image.shape[0]} x {image.shape[1]} "
            f"(height x width), got {mask.shape[0]} x {mask.shape[1]}; image: {files.image}"
        )


def mask_name(sample: Sample) -> object:
    """Return the name of a sample's mask for messages: the mask file, or the sample's name if there are no files."""
    return getattr(sample, "mask", sample.name)


@dataclass(frozen=True)
class DataSource:
    """A data set: its classes, and the samples of each split."""

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    table: LabelTable
    splits: Mapping[str, Sequence[Sample]] = field(repr=False)
    notes: tuple[str, ...] = ()
    """Notes for the user about how the data set was read."""
    sequence: str = ""
    """Regular expression for the start of sample names, which is equal for all frames of a video; empty: no videos."""

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split; if it does not exist, raises a UserError that lists the existing splits."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}")
        return self.splits[split]


def fingerprint(source: DataSource) -> str:
    """Return a digest of the classes, the label table, and the split, name and file sizes of each sample."""
    digest = hashlib.blake2b(repr((source.classes, source.table.values.tolist())).encode(), digest_size=8)
    for split, samples in source.splits.items():
        for sample in samples:
            files = [path for path in (getattr(sample, "image", None), getattr(sample, "mask", None)) if path]
            digest.update(repr((split, sample.name, [path.stat().st_size for path in files])).encode())
    return digest.hexdigest()
