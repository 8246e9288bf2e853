"""A folder of images and index masks: the generic layout.

    images/<split>/*.jpg   masks/<split>/*.png   dataset.json (classes, palette, ignore_index)   <split>.txt

Without dataset.json the classes are counted in the masks; without splits a hash of each name makes two.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segformer.config import IGNORE_INDEX, default_palette
from segformer.data.dataset import MAX_CLASSES, DataSource, LabelTable, Pair
from segformer.data.images import list_images, read_mask
from segformer.files import read_json

IMAGES, MASKS, DESCRIPTION = "images", "masks", "dataset.json"
VAL_PERCENT = 20


def open_source(root: str) -> DataSource:
    """Read the layout below ``root``; raises FileNotFoundError or ValueError that name what is missing."""
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"no data folder at '{root}'; give one with --data FOLDER")
    for part in (IMAGES, MASKS):
        if not (folder / part).is_dir():
            raise ValueError(f"{folder}: expected the folders {IMAGES}/ and {MASKS}/, found no {part}/")
    splits, notes = find_splits(folder)
    described, table, more = describe(folder, [pair for pairs in splits.values() for pair in pairs])
    return DataSource(str(folder), *described, table, splits, (*notes, *more))


def find_splits(folder: Path) -> tuple[dict[str, list[Pair]], list[str]]:
    """Pairs of each split, by the folders below images/, or by a hash where there are none; and a note for the user."""
    names = sorted(p.name for p in (folder / IMAGES).iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = {name: find_pairs(folder, name) for name in names}
    if loose := [p for p in list_images(folder / IMAGES) if p.parent == folder / IMAGES]:
        if splits:
            raise ValueError(
                f"{folder / IMAGES}: expected folders of splits or images, found both, e.g. {loose[0].name}"
            )
        return hash_splits(find_pairs(folder, "."))
    if not any(splits.values()):
        raise ValueError(f"{folder / IMAGES}: no images found")
    return splits, []


def hash_splits(pairs: Sequence[Pair]) -> tuple[dict[str, list[Pair]], list[str]]:
    """Put about a fifth of the pairs into val, by a hash of the name that no other file changes."""
    ranked = sorted(pairs, key=lambda pair: (zlib.crc32(pair.image.stem.encode()) % 100 >= VAL_PERCENT, pair.name))
    in_val = sum(zlib.crc32(pair.image.stem.encode()) % 100 < VAL_PERCENT for pair in pairs)
    if len(pairs) >= 2:
        in_val = min(max(in_val, 1), len(pairs) - 1)  # neither may be empty, however few there are
    val, train = ranked[:in_val], ranked[in_val:]
    note = f"no splits found: {len(val)} of {len(pairs)} images are held out as val (by a hash of their names)"
    return {"train": train, "val": val}, [note]


def find_pairs(folder: Path, split: str) -> list[Pair]:
    """Images of a split with their masks: those that <split>.txt names, or all."""
    images, masks = folder / IMAGES / split, folder / MASKS / split
    found = {path.relative_to(images).with_suffix("").as_posix(): path for path in list_images(images)}
    listing = folder / f"{split}.txt"
    names = listing.read_text(encoding="utf-8").split() if listing.is_file() else list(found)
    pairs = []
    for name in names:
        mask = masks / f"{name}.png"
        if name not in found:
            raise FileNotFoundError(f"{listing}: names '{name}', but there is no such image in {images}")
        if not mask.is_file():
            raise FileNotFoundError(f"{mask}: no mask for the image {found[name]}; add it, or remove the image")
        pairs.append(Pair(name, found[name], mask))
    return pairs


def describe(folder: Path, pairs: Sequence[Pair]) -> tuple[tuple[Any, Any], LabelTable, list[str]]:
    """Classes and palette, label table and notes: from dataset.json, else from the masks."""
    path = folder / DESCRIPTION
    if path.is_file():
        values = read_json(path)
        classes = values.get("classes") if isinstance(values, dict) else None
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError(f'{path}: expected "classes", a list of names')
        palette = values.get("palette", default_palette(len(classes)))
        if len(palette) != len(classes) or not all(_is_color(color) for color in palette):
            raise ValueError(f'{path}: expected "palette" to hold {len(classes)} colours [red, green, blue] of 0-255')
        ignore = values.get("ignore_index", IGNORE_INDEX)
        table = LabelTable.identity(len(classes), ignore)
        return (tuple(classes), tuple(tuple(color) for color in palette)), table, []
    num_classes = count_classes(pairs)
    note = (
        f"no {DESCRIPTION} found: {num_classes} classes counted in the masks, named class_0 ... class_{num_classes - 1}"
    )
    names = tuple(f"class_{k}" for k in range(num_classes))
    return (names, default_palette(num_classes)), LabelTable.identity(num_classes), [note]


def count_classes(pairs: Sequence[Pair]) -> int:
    """One more than the highest id in the masks, 255 apart; raises a ValueError that names a mask beyond that."""
    highest = 0
    for pair in pairs:
        ids = np.unique(read_mask(pair.mask))
        ids = ids[ids != IGNORE_INDEX]
        if len(ids) and ids[-1] >= MAX_CLASSES:
            raise ValueError(
                f"{pair.mask}: expected labels 0-{MAX_CLASSES - 1} or {IGNORE_INDEX} (ignored), got {ids[-1]}"
            )
        highest = max(highest, int(ids[-1]) if len(ids) else 0)
    return highest + 1


def _is_color(color: Any) -> bool:
    return isinstance(color, list | tuple) and len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color)
