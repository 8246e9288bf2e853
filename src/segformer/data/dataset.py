"""Samples, the label table, and the one Dataset class."""

import hashlib
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Color, check_choice
from segformer.data.images import RGB, Decoding, read_image, read_mask
from segformer.errors import UserError

T = TypeVar("T")
INVALID = -1  # in a label table: a raw id that must not occur
MAX_CLASSES = IGNORE_INDEX
Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class Sample(Protocol):
    """An image with its mask, not read yet."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image (H, W, C) uint8 or float32, maybe reduced, and the mask (H, W) of raw label ids."""
        ...


@dataclass(frozen=True)
class Pair:
    """An image file with its mask file."""

    name: str
    image: Path
    mask: Path

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode both; raises a UserError that names the files where their sizes differ."""
        image, mask = read_image(self.image, decoding), read_mask(self.mask)
        check_sizes(image, mask, self, decoding)
        return image, mask


class Files(Protocol):
    """What has an image file and a file that says its classes."""

    @property
    def image(self) -> Path:
        """The image file."""
        ...

    @property
    def mask(self) -> Path:
        """The file of its classes."""
        ...


def check_sizes(image: Array, mask: Array, files: Files, decoding: Decoding = RGB) -> None:
    """Raise a UserError that names the files where an image (H, W, ...) and its mask (H, W) differ in size."""
    reductions = (1,) if decoding.enough is None else (1, 2, 4, 8)
    if image.shape[:2] not in [tuple(-(-side // factor) for side in mask.shape) for factor in reductions]:
        raise UserError(
            f"{files.mask}: expected a mask of its image's size {image.shape[0]} x {image.shape[1]} "
            f"(height x width), got {mask.shape[0]} x {mask.shape[1]}; image: {files.image}"
        )


@dataclass(frozen=True)
class LabelTable:
    """One explicit raw id -> class table of a data set, applied once, as a look-up."""

    values: Array
    """(max raw id + 1,) int16: class index, IGNORE_INDEX or INVALID."""

    @classmethod
    def identity(cls, num_classes: int, ignore_index: int = IGNORE_INDEX) -> "LabelTable":
        """Ids 0 ... K-1 are the classes, ``ignore_index`` is ignored, all others are errors."""
        if num_classes > MAX_CLASSES:
            raise UserError(f"at most {MAX_CLASSES} classes are supported, got {num_classes}")
        values = np.full(max(num_classes, ignore_index) + 1, INVALID, dtype=np.int16)
        values[:num_classes] = np.arange(num_classes)
        values[ignore_index] = IGNORE_INDEX
        return cls(values)

    @classmethod
    def of(cls, mapping: Mapping[int, int], size: int = 256, unlisted: int = INVALID) -> "LabelTable":
        """Ids 0 ... size-1 become what the mapping says, or else ``unlisted``; ids from ``size`` on are errors.

        >>> LabelTable.of({0: IGNORE_INDEX, 1: 0}, size=3).values.tolist()
        [255, 0, -1]
        """
        for raw, value in mapping.items():
            if not 0 <= raw < size or not INVALID <= value <= IGNORE_INDEX:
                raise UserError(
                    f"a label table of size {size} must map ids 0-{size - 1} to classes 0-{MAX_CLASSES - 1}, "
                    f"{IGNORE_INDEX} (ignored) or {INVALID} (must not occur), got {raw} -> {value}"
                )
        return cls(np.array([mapping.get(raw, unlisted) for raw in range(size)], dtype=np.int16))

    def apply(self, mask: Array, name: object) -> Array:
        """Raw ids (H, W) -> class indices (H, W) uint8; raises a UserError that names the mask and the id."""
        if mask.dtype == np.uint8:
            codes, mark = self._codes
            translated = bytearray(mask).translate(codes)  # many times as fast as an array for an index
            if mark not in translated:
                return np.frombuffer(translated, np.uint8).reshape(mask.shape)
        mask = mask.astype(np.int32)
        inside = mask.clip(0, len(self.values) - 1)
        classes = self.values[inside]
        wrong = (classes == INVALID) | (mask != inside)
        if wrong.any():
            raise UserError(self._message(mask, wrong, name))
        return np.asarray(classes, dtype=np.uint8)

    @cached_property
    def _codes(self) -> tuple[bytes, bytes]:
        """What the ids 0-255 become, and what marks those that must not occur: a code that no other id becomes."""
        values = np.full(256, INVALID)
        values[: len(self.values)] = self.values[:256]
        free = np.setdiff1d(np.arange(256), values)[:1]  # empty only where no id is INVALID
        values[values == INVALID] = free
        return values.astype(np.uint8).tobytes(), free.astype(np.uint8).tobytes()

    def _message(self, mask: Array, wrong: Array, name: object) -> str:
        known = ranges(np.flatnonzero((self.values != INVALID) & (self.values != IGNORE_INDEX)))
        ignored = ranges(np.flatnonzero(self.values == IGNORE_INDEX))
        found = np.unique(mask[wrong])
        return (
            f"{name}: expected labels {known} or {ignored} (ignored), got {', '.join(map(str, found[:5]))} "
            f"at {int(wrong.sum())} pixels; correct the mask or the classes"
        )


def ranges(ids: Array) -> str:
    """Write ids in order as ranges.

    >>> ranges(np.array([0, 1, 2, 5, 7, 8]))
    '0-2, 5, 7-8'
    """
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if len(run))


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
    sequence: str = ""
    """A pattern that matches the start of a sample's name up to what tells the frames of a sequence apart."""

    def samples(self, split: str) -> Sequence[Sample]:
        """Return the samples of a split; raises a UserError that names the splits there are."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}")
        return self.splits[split]


@dataclass(frozen=True)
class Translated:
    """A sample whose mask holds the classes of a joined data set."""

    sample: Sample
    table: LabelTable = field(repr=False)

    @property
    def name(self) -> str:
        """That of the sample."""
        return self.sample.name

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image and class indices (H, W) uint8."""
        image, mask = self.sample.read(decoding)
        return image, self.table.apply(mask, place_of(self.sample))


def place_of(sample: Sample) -> object:
    """Return the file of a sample's mask, or what else to call it in messages."""
    return getattr(sample, "mask", sample.name)


def join(sources: Sequence[DataSource]) -> DataSource:
    """Put data sets together, split by split; classes are those of the first, and found by name in the others.

    Raises a UserError for a class that the first does not have.
    """
    first = sources[0]
    splits: dict[str, list[Sample]] = {}
    for source in sources:
        table = table_into(source, first)
        for split, samples in source.splits.items():
            splits.setdefault(split, []).extend(Translated(sample, table) for sample in samples)
    names = " + ".join(source.name for source in sources)
    notes = tuple(f"{source.name}: {note}" for source in sources for note in source.notes)
    return DataSource(names, first.classes, first.palette, LabelTable.identity(len(first.classes)), splits, notes)


def table_into(source: DataSource, target: DataSource) -> LabelTable:
    """Return the label table of a source, with the classes of another."""
    for name in source.classes:
        if name not in target.classes:
            raise UserError(
                f"{source.name} has the class '{name}', which {target.name} has not (it has "
                f"{', '.join(target.classes[:4])}, ...); rename or ignore it in both with data.relabel"
            )
    return mapped(source.table, [target.classes.index(name) for name in source.classes])


def mapped(table: LabelTable, classes: Sequence[int]) -> LabelTable:
    """Return a table whose class k became ``classes[k]``."""
    lookup = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, dtype=np.int16)
    lookup[: len(classes)] = classes
    return LabelTable(np.where(table.values == INVALID, INVALID, lookup[table.values.clip(0)]).astype(np.int16))


def relabel(source: DataSource, changes: Sequence[tuple[str, str]]) -> DataSource:
    """Rename classes, merge those that get the same name, and ignore those that get none.

    Raises a UserError where a class is not there, or fewer than two remain.
    """
    renamed = dict(zip(source.classes, source.classes, strict=True))
    for old, new in changes:
        check_choice("data.relabel", old, source.classes)
        renamed[old] = new
    classes = tuple(dict.fromkeys(name for name in renamed.values() if name))
    if len(classes) < 2:
        raise UserError(f"data.relabel must leave at least two classes, it leaves {', '.join(classes) or 'none'}")
    index = {name: classes.index(new) if new else IGNORE_INDEX for name, new in renamed.items()}
    table = mapped(source.table, [index[name] for name in source.classes])
    first = {name: next(old for old, new in renamed.items() if new == name) for name in classes}
    palette = tuple(source.palette[source.classes.index(first[name])] for name in classes)
    return replace(source, classes=classes, palette=palette, table=table)


def fingerprint(source: DataSource) -> str:
    """Digest of the classes, the label table, and the names and sizes of all files, in their splits."""
    digest = hashlib.blake2b(repr((source.classes, source.table.values.tolist())).encode(), digest_size=8)
    for split, samples in source.splits.items():
        for sample in samples:
            files = [path for path in (getattr(sample, "image", None), getattr(sample, "mask", None)) if path]
            digest.update(repr((split, sample.name, [path.stat().st_size for path in files])).encode())
    return digest.hexdigest()


class SegmentationDataset(Dataset[tuple[Tensor, Tensor]]):
    """Samples of one split as tensors: image (C, H, W) and mask (H, W) uint8 class indices, transformed.

    An item is asked for by (epoch, index): the transform's random numbers are a function of (seed, epoch, index).
    A transform must not write to the image that it gets, which may be the sample's own memory.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        table: LabelTable,
        transform: Transform | None,
        seed: int = 0,
        decoding: Decoding = RGB,
    ) -> None:
        self.samples = samples
        self.table = table
        self.transform = transform
        self.seed = seed
        self.decoding = decoding

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        sample = self.samples[index]
        pixels, raw = sample.read(self.decoding)
        mask = torch.from_numpy(self.table.apply(raw, place_of(sample)))
        if self.transform is None:
            return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C")), mask
        return self.transform(channels_first(pixels), mask, generator_of(self.seed, epoch, index))


def channels_first(pixels: Array) -> Tensor:
    """(H, W, C) -> (C, H, W) in the same memory where possible; it may be read-only, so nothing may write to it.

    More than three channels become planes: torch's resize would round them otherwise, and runs must be repeatable.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if pixels.shape[2] <= 3:
            return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def generator_of(*key: int) -> torch.Generator:
    """Return a random generator that is a function of the key, the same in every process."""
    return torch.Generator().manual_seed(seed_of(*key))


def iterate(loader: DataLoader[T]) -> Iterator[T]:
    """Yield from a loader; an error in one of its workers is raised as what it was, without the worker's traceback."""
    try:
        yield from loader
    except (ValueError, OSError) as error:
        traceback.clear_frames(error.__traceback__)  # they hold the loader's iterator, and that its workers
        _, found, message = str(error).rpartition(f"\n{type(error).__name__}: ")
        if not found:
            raise
        raise type(error)(message.strip()) from None


def leave_signals_to_the_parent(_: int) -> None:
    """Put a worker into a process group of its own: Ctrl-C and SIGTERM for the parent's group do not end it."""
    os.setpgid(0, 0)


def seed_of(*key: int) -> int:
    """Mix integers, 0 or more, into a seed; neighbouring keys give unrelated ones, and so do keys of other lengths."""
    (state,) = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return int(state) >> 1  # torch takes 63 bits
