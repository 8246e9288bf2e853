"""ImageNet-1K, or any data set with one folder per class, for the pre-training of an encoder (Sec. 4.1).

    train/<class>/*.JPEG                          val/<class>/*.JPEG         as for torchvision's ImageFolder
    ILSVRC/Data/CLS-LOC/train/<class>/*.JPEG      ILSVRC/Data/CLS-LOC/val/*.JPEG      LOC_val_solution.csv

The second layout is the official one: all images of val are in one folder, and a table names the class of each.  The
classes are the folders in train, sorted by name; LOC_synset_mapping.txt lists a readable name for each class.
"""

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from segformer.arrays import to_tensor
from segformer.data.image_paths import IMAGE_SUFFIXES
from segformer.data.images import read_image
from segformer.data.loading import generator_of
from segformer.data.sources.pairing import check_root
from segformer.errors import UserError

Transform = Callable[[Tensor, torch.Generator], Tensor]
OFFICIAL = Path("ILSVRC", "Data", "CLS-LOC")
SOLUTION = "LOC_val_solution.csv"
CLASS_NAMES = "LOC_synset_mapping.txt"
LAYOUT = f"train/ and val/ with one folder per class, or the official tree {OFFICIAL}/ with {SOLUTION}"


@dataclass(frozen=True)
class LabeledImages:
    """Classes of a classification data set, and the images of each split."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, "ImageFiles"] = field(repr=False)

    def samples(self, split: str) -> "ImageFiles":
        """Return the samples of a split; raises a UserError that lists the existing splits."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}")
        return self.splits[split]


@dataclass(frozen=True, eq=False)
class ImageFiles(Sequence[tuple[Path, int]]):
    """Image files and class indices in two arrays; a million Path objects would need half a gigabyte per worker."""

    folder: Path
    names: NDArray[np.bytes_]
    """Paths relative to ``folder``, encoded as in the file system.  (N,)"""
    labels: NDArray[np.int64]
    """Class indices.  (N,)"""

    @classmethod
    def from_names(cls, folder: Path, names: Sequence[str], labels: Sequence[int]) -> "ImageFiles":
        """Store relative paths and class indices as arrays."""
        return cls(folder, np.array([os.fsencode(name) for name in names]), np.array(labels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, item: int) -> tuple[Path, int]: ...
    @overload
    def __getitem__(self, item: slice) -> "ImageFiles": ...
    def __getitem__(self, item: int | slice) -> "tuple[Path, int] | ImageFiles":
        if isinstance(item, slice):
            return ImageFiles(self.folder, self.names[item], self.labels[item])
        return self.folder / os.fsdecode(self.names[item]), int(self.labels[item])


class ClassificationDataset(Dataset[tuple[Tensor, int]]):
    """Samples of one split, each a transformed image with the index of its class.

    An item is requested by the key (augmentation number, index).  The transform receives an image (C, H, W) uint8 and
    a generator.  The generator depends only on (seed, augmentation number, index).
    """

    def __init__(self, samples: Sequence[tuple[Path, int]], transform: Transform, seed: int = 0) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        number, index = item
        path, label = self.samples[index]
        image = to_tensor(read_image(path)).contiguous()
        return self.transform(image, generator_of(self.seed, number, index)), label


def open_images(root: str) -> LabeledImages:
    """List the images of train, and of val if it exists; raises a UserError that names what is missing."""
    path = check_root(root, is_class_folders, LAYOUT)
    train, val = (folder_of_splits(path) / split for split in ("train", "val"))
    folders, loose = scan(train)
    if loose or not folders:
        found = f"the image {loose[0]} outside of them" if loose else "none"
        raise UserError(f"{train}: expected one folder per class, found {found}; sort the images into class folders")
    splits = {"train": list_folders(train, folders, folders)}
    if val.is_dir():
        splits["val"] = open_val(val, path / SOLUTION, folders)
    names = read_names(path / CLASS_NAMES) if (path / CLASS_NAMES).is_file() else {}
    return LabeledImages(str(path), tuple(names.get(folder, folder) for folder in folders), splits)


def is_class_folders(root: Path) -> bool:
    """Whether a folder contains train/, directly or in ILSVRC/Data/CLS-LOC/."""
    return (folder_of_splits(root) / "train").is_dir()


def folder_of_splits(root: Path) -> Path:
    """Return the folder that contains train/ and val/."""
    return root / OFFICIAL if (root / OFFICIAL).is_dir() else root


def scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return (names of the folders, names of the images) in a folder, both sorted and without hidden entries.

    Images are recognized by their endings alone, because it would take too long to open 1.28 million files.
    """
    folders, images = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                images.append(entry.name)
            elif entry.is_dir():
                folders.append(entry.name)
    return sorted(folders), sorted(images)


def list_folders(split: Path, folders: Sequence[str], classes: Sequence[str]) -> ImageFiles:
    """List the images in the class folders; raises a UserError that names a folder without images."""
    index = {name: k for k, name in enumerate(classes)}
    names: list[str] = []
    labels: list[int] = []
    for folder in folders:
        _, images = scan(split / folder)
        if not images:
            raise UserError(f"{split / folder}: no images in this class folder; add some, or remove it")
        names += [f"{folder}/{image}" for image in images]
        labels += [index[folder]] * len(images)
    return ImageFiles.from_names(split, names, labels)


def open_val(val: Path, solution: Path, classes: Sequence[str]) -> ImageFiles:
    """List the images of val, which are either in class folders, as in train, or all in one folder."""
    folders, images = scan(val)
    if bool(folders) == bool(images):
        found = f"both, such as {folders[0]}/ and {images[0]}; remove one kind" if folders else "neither; add them"
        raise UserError(f"{val}: expected either class folders or images, found {found}")
    if unknown := sorted(set(folders) - set(classes)):
        raise UserError(f"{val / unknown[0]}: this class has no folder in train/; add it there, or remove it here")
    if folders:
        return list_folders(val, folders, classes)
    return ImageFiles.from_names(val, images, labels_of(images, val, solution, classes))


def labels_of(images: Sequence[str], val: Path, solution: Path, classes: Sequence[str]) -> list[int]:
    """Look up class indices in the official table; raises a UserError if the table does not match the images."""
    if not solution.is_file():
        raise UserError(
            f"{solution}: this table with the class of each image in {val} is missing; copy it there from the Kaggle "
            f"download, or sort the images into one folder per class"
        )
    rows = read_solution(solution)
    labels = []
    for image in images:
        name = rows.pop(Path(image).stem, None)
        if name not in classes:
            wrong = "no class" if name is None else f"the class {name}, which has no folder in train/"
            raise UserError(
                f"{val / image}: {solution} gives this image {wrong}; correct the table, or remove the image"
            )
        labels.append(classes.index(name))
    if rows:
        raise UserError(
            f"{solution} names '{next(iter(rows))}', but {val} has no such image; restore the image, or remove its row"
        )
    return labels


def read_solution(path: Path) -> dict[str, str]:
    """Read {image: class} from rows of image, class, box, such as ILSVRC2012_val_00048981,n03995372 85 1 499 272."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a table as comma-separated text, got something else ({error})") from error
    if header != ["ImageId", "PredictionString"] or not all(len(row) == 2 and row[1].strip() for row in rows):
        raise UserError(f"{path}: expected the columns ImageId and PredictionString, got {header or 'none'}")
    return {image: prediction.split()[0] for image, prediction in rows}


def read_names(path: Path) -> dict[str, str]:
    """Read {class folder: readable name} from lines such as n01440764 tench, Tinca tinca."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text, got something else ({error})") from error
    rows = [line.split(maxsplit=1) for line in lines if line.strip()]
    for row in rows:
        if len(row) != 2:
            raise UserError(f"{path}: expected lines with a folder and a name, such as n01440764 tench, got '{row[0]}'")
    return {folder: name.strip() for folder, name in rows}
