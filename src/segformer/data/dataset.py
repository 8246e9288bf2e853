"""Data sets as they are found: samples that have not been read yet, their splits and their classes."""

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
    """An image with its mask, not read yet."""

    @property
    def name(self) -> str:
        """Name of the sample in messages."""
        ...

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image (H, W, C) uint8 or float32, perhaps reduced, and the mask (H, W) of raw label ids."""
        ...


@dataclass(frozen=True)
class Pair:
    """An image file with its mask file."""

    name: str
    image: Path
    mask: Path

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode both; raises a UserError that names the files where their sizes differ."""
        image = read_image(self.image, decoding)
        mask = read_mask(self.mask)
        check_sizes(image, mask, self, decoding)
        return image, mask


class Files(Protocol):
    """Anything with an image file and a file that holds its classes."""

    @property
    def image(self) -> Path:
        """The image file."""
        ...

    @property
    def mask(self) -> Path:
        """The file that holds the classes."""
        ...


def check_sizes(image: Array, mask: Array, files: Files, decoding: Decoding = RGB) -> None:
    """Raise a UserError that names the files where an image (H, W, ...) and its mask (H, W) differ in size."""
    reductions = (1,) if decoding.enough is None else (1, 2, 4, 8)
    if image.shape[:2] not in [tuple(-(-side // factor) for side in mask.shape) for factor in reductions]:
        raise UserError(
            f"{files.mask}: expected a mask of its image's size {image.shape[0]} x {image.shape[1]} "
            f"(height x width), got {mask.shape[0]} x {mask.shape[1]}; image: {files.image}"
        )


def mask_name(sample: Sample) -> object:
    """Return what messages call the mask of a sample: its file, or the name of the sample."""
    return getattr(sample, "mask", sample.name)


@dataclass(frozen=True)
class DataSource:
    """A data set as found: its classes and the samples of each split."""

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    table: LabelTable
    splits: Mapping[str, Sequence[Sample]] = field(repr=False)
    notes: tuple[str, ...] = ()
    """What a user should know about how the data were read."""
    sequence: str = ""
    """Pattern of the part of a sample's name that all frames of one video share; empty: no videos."""

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split; raises a UserError that lists the splits of the data set."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}")
        return self.splits[split]


def fingerprint(source: DataSource) -> str:
    """Digest of the classes, the label table, and the names and sizes of all files in their splits."""
    digest = hashlib.blake2b(repr((source.classes, source.table.values.tolist())).encode(), digest_size=8)
    for split, samples in source.splits.items():
        for sample in samples:
            files = [path for path in (getattr(sample, "image", None), getattr(sample, "mask", None)) if path]
            digest.update(repr((split, sample.name, [path.stat().st_size for path in files])).encode())
    return digest.hexdigest()
