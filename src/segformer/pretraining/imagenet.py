"""ImageNet-1K, or any folder of one folder per class, for the classification pre-training of an encoder (Sec. 4.1).

    train/<class>/*.JPEG                          val/<class>/*.JPEG         as torchvision's ImageFolder has it
    ILSVRC/Data/CLS-LOC/train/<class>/*.JPEG      ILSVRC/Data/CLS-LOC/val/*.JPEG      LOC_val_solution.csv

The second is the official tree, in which the images of val lie in one folder and a table says their classes.  The class
folders of train, sorted by name, are the classes; LOC_synset_mapping.txt gives them readable names.
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

from segformer.data.image_paths import IMAGE_SUFFIXES
from segformer.data.images import read_image
from segformer.data.loading import generator_of
from segformer.data.sources.pairing import check_root
from segformer.errors import UserError

Transform = Callable[[Tensor, torch.Generator], Tensor]
OFFICIAL = Path("ILSVRC", "Data", "CLS-LOC")
SOLUTION, NAMES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
LAYOUT = f"train/ and val/ of one folder per class, or the official tree {OFFICIAL}/ with {SOLUTION}"


@dataclass(frozen=True)
class LabelledImages:
    """A classification data set as found: its classes and the images of each split."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[tuple[Path, int]]] = field(repr=False)
    """Image files, each with the index of its class."""

    def samples(self, split: str) -> Sequence[tuple[Path, int]]:
        """Return the samples of a split; raises a UserError that names the splits there are."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split '{split}'; it has {', '.join(self.splits)}")
        return self.splits[split]


@dataclass(frozen=True, eq=False)
class ImageFiles(Sequence[tuple[Path, int]]):
    """Image files with their classes, as two arrays: a million paths would be half a gigabyte in every worker."""

    folder: Path
    names: NDArray[np.bytes_]
    """(N,) paths below the folder, as the system writes them."""
    labels: NDArray[np.int64]
    """(N,) indices of the classes."""

    @classmethod
    def of(cls, folder: Path, names: Sequence[str], labels: Sequence[int]) -> "ImageFiles":
        """Pack names and class indices."""
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
    """Samples of one split: the image (C, H, W) uint8, transformed, and the index of its class.

    An item is asked for by (epoch, index): the transform's random numbers are a function of (seed, epoch, index).
    """

    def __init__(self, samples: Sequence[tuple[Path, int]], transform: Transform, seed: int = 0) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = item
        path, label = self.samples[index]
        image = torch.from_numpy(np.ascontiguousarray(read_image(path).transpose(2, 0, 1)))
        return self.transform(image, generator_of(self.seed, epoch, index)), label


def open_images(root: str) -> LabelledImages:
    """List the images of train and, where it is there, of val.

    Raises UserError that name what is missing.
    """
    path = check_root(root, fits, LAYOUT)
    train, val = (home_of(path) / split for split in ("train", "val"))
    folders, loose = scan(train)
    if loose or not folders:
        found = f"the image {loose[0]} beside them; put it into one" if loose else "none; put the images into such"
        raise UserError(f"{train}: expected one folder per class, found {found}")
    splits = {"train": list_folders(train, folders, folders)}
    if val.is_dir():
        splits["val"] = open_val(val, path / SOLUTION, folders)
    names = read_names(path / NAMES) if (path / NAMES).is_file() else {}
    return LabelledImages(str(path), tuple(names.get(folder, folder) for folder in folders), splits)


def fits(root: Path) -> bool:
    """Whether a folder looks like it."""
    return (home_of(root) / "train").is_dir()


def home_of(root: Path) -> Path:
    """Where the splits lie."""
    return root / OFFICIAL if (root / OFFICIAL).is_dir() else root


def scan(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the images in a folder, sorted; hidden ones left out.

    No file is asked for more than its name: there are 1.28 million.
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
    """Images of the class folders; raises a UserError that names an empty one."""
    index = {name: k for k, name in enumerate(classes)}
    names: list[str] = []
    labels: list[int] = []
    for folder in folders:
        _, images = scan(split / folder)
        if not images:
            raise UserError(f"{split / folder}: no images found in this folder of a class; complete it, or remove it")
        names += [f"{folder}/{image}" for image in images]
        labels += [index[folder]] * len(images)
    return ImageFiles.of(split, names, labels)


def open_val(val: Path, solution: Path, classes: Sequence[str]) -> ImageFiles:
    """Images of val, in class folders that train has as well, or in one folder beside the official table."""
    folders, images = scan(val)
    if bool(folders) == bool(images):
        found = f"both, e.g. {folders[0]}/ and {images[0]}" if folders else "neither"
        raise UserError(f"{val}: expected folders of classes or images, found {found}")
    if unknown := sorted(set(folders) - set(classes)):
        raise UserError(f"{val / unknown[0]}: train/ has no folder of this class; add it there, or remove it here")
    if folders:
        return list_folders(val, folders, classes)
    return ImageFiles.of(val, images, labels_of(images, val, solution, classes))


def labels_of(images: Sequence[str], val: Path, solution: Path, classes: Sequence[str]) -> list[int]:
    """Class indices by the official table; raises an error where it and the images do not match."""
    if not solution.is_file():
        raise UserError(
            f"{solution}: expected a table of the classes of the images in {val}, found nothing; put it there "
            f"(it comes with the download from Kaggle), or sort the images into one folder per class"
        )
    rows = read_solution(solution)
    labels = []
    for image in images:
        name = rows.pop(Path(image).stem, None)
        if name not in classes:
            wrong = "has no class" if name is None else f"is of the class {name}, which has no folder in train/"
            raise UserError(f"{val / image}: {wrong} by {solution}; correct the table, or remove the image")
        labels.append(classes.index(name))
    if rows:
        raise UserError(f"{solution}: names '{next(iter(rows))}', but there is no such image in {val}")
    return labels


def read_solution(path: Path) -> dict[str, str]:
    """Image -> class, from rows such as ILSVRC2012_val_00048981,n03995372 85 1 499 272 (the class, then boxes)."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if header != ["ImageId", "PredictionString"] or not all(len(row) == 2 and row[1].strip() for row in rows):
        raise UserError(f"{path}: expected a table with the columns ImageId and PredictionString, got something else")
    return {image: prediction.split()[0] for image, prediction in rows}


def read_names(path: Path) -> dict[str, str]:
    """Folder -> readable name of a class, from lines such as n01440764 tench, Tinca tinca."""
    rows = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2:
            raise UserError(f"{path}: expected lines of a folder and a name, such as n01440764 tench, got '{row[0]}'")
    return {folder: name.strip() for folder, name in rows}
