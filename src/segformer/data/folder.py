"""A folder of images and index masks: the generic layout.

    images/<split>/*.jpg   masks/<split>/*.png   dataset.json (classes, palette, ignore_index)   <split>.txt

Without dataset.json the classes are counted in the masks; without splits a hash of each name makes two.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segformer.config import IGNORE_INDEX, Color, default_palette
from segformer.data.dataset import MAX_CLASSES, DataSource, LabelTable, Pair
from segformer.data.images import list_images, read_mask
from segformer.files import read_json

IMAGES, MASKS, DESCRIPTION = "images", "masks", "dataset.json"
LISTED = ("train", "val", "test")
VAL_PERCENT = 20
MAX_ID = 65_535


def open_source(root: str) -> DataSource:
    """Read the layout below ``root``; raises FileNotFoundError or ValueError that name what is missing."""
    folder = Path(root)
    if not root or not folder.is_dir():
        raise FileNotFoundError(f"no data folder at '{root}'; give one with --data FOLDER")
    for part in (IMAGES, MASKS):
        if not (folder / part).is_dir():
            raise ValueError(f"{folder}: expected the folders {IMAGES}/ and {MASKS}/, found no {part}/")
    splits, notes = find_splits(folder)
    path, pairs = folder / DESCRIPTION, [pair for pairs in splits.values() for pair in pairs]
    if path.is_file():
        return DataSource(str(folder), *read_description(path), splits, tuple(notes))
    names = tuple(f"class_{k}" for k in range(count_classes(pairs)))
    notes = [*notes, f"no {DESCRIPTION} found: {len(names)} classes counted in the masks, {names[0]} ... {names[-1]}"]
    table = LabelTable.identity(len(names))
    return DataSource(str(folder), names, default_palette(len(names)), table, splits, tuple(notes))


def find_splits(folder: Path) -> tuple[dict[str, list[Pair]], list[str]]:
    """Pairs of each split, and notes for the user.

    The splits are the folders below images/; without such, the lists train.txt, val.txt and test.txt; without
    these, two that are made by a hash.
    """
    images, masks = folder / IMAGES, folder / MASKS
    splits = sorted(p.name for p in images.iterdir() if p.is_dir() and not p.name.startswith("."))
    loose = [path.name for path in list_images(images) if path.parent == images]
    if splits and loose:
        raise ValueError(
            f"{images}: expected folders of splits or images, found both, e.g. {splits[0]}/ and {loose[0]}"
        )
    if splits:
        found = {name: find_pairs(images / name, masks / name, folder / f"{name}.txt") for name in splits}
    else:
        lists = [path for path in (folder / f"{name}.txt" for name in LISTED) if path.is_file()]
        found = {path.stem: find_pairs(images, masks, path) for path in lists}
    pairs = [] if found else find_pairs(images, masks, None)
    if not (pairs or any(found.values())):
        raise ValueError(f"{images}: no images found; expected images, with masks of the same names in {masks}")
    return (found, []) if found else hash_splits(pairs)


def hash_splits(pairs: Sequence[Pair]) -> tuple[dict[str, list[Pair]], list[str]]:
    """Put about a fifth of the pairs into val by a hash of each name; of two or more, at least one in each split."""
    ranked = sorted(pairs, key=lambda pair: (_hash(pair) >= VAL_PERCENT, pair.name))
    in_val = sum(_hash(pair) < VAL_PERCENT for pair in pairs)
    if len(pairs) >= 2:
        in_val = min(max(in_val, 1), len(pairs) - 1)
    note = f"no splits found: {in_val} of {len(pairs)} images are held out as val (by a hash of their names)"
    return {"train": ranked[in_val:], "val": ranked[:in_val]}, [note]


def find_pairs(images: Path, masks: Path, listing: Path | None) -> list[Pair]:
    """Images with their masks: those whose names the listing holds, one a line, or all."""
    found: dict[str, Path] = {}
    for path in list_images(images):
        name = path.relative_to(images).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{path} and {found[name].name} would share a mask; rename one")
        found[name] = path
    names = list(found)
    if listing is not None and listing.is_file():
        names = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs = []
    for name in names:
        mask = masks / f"{name}.png"
        if name not in found:
            raise FileNotFoundError(f"{listing}: names '{name}', but there is no such image in {images}")
        if not mask.is_file():
            raise FileNotFoundError(f"{mask}: no mask for the image {found[name]}; add it, or remove the image")
        pairs.append(Pair(name, found[name], mask))
    return pairs


def read_description(path: Path) -> tuple[tuple[str, ...], tuple[Color, ...], LabelTable]:
    """Classes, palette and label table of a dataset.json; raises a ValueError that names it and the field at fault."""
    values = read_json(path)
    classes = values.get("classes") if isinstance(values, dict) else None
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f'{path}: expected "classes", a list of names')
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"{path}: expected at most {MAX_CLASSES} classes, got {len(classes)}")
    palette = values.get("palette", default_palette(len(classes)))
    if not isinstance(palette, list | tuple) or len(palette) != len(classes) or not all(map(_is_color, palette)):
        raise ValueError(f'{path}: expected "palette" to hold {len(classes)} colours [red, green, blue] of 0-255')
    ignore = values.get("ignore_index", IGNORE_INDEX)
    if type(ignore) is not int or not 0 <= ignore <= MAX_ID:
        raise ValueError(f'{path}: expected "ignore_index" to be an id of 0-{MAX_ID}, got {ignore!r}')
    return tuple(classes), tuple(tuple(color) for color in palette), LabelTable.identity(len(classes), ignore)


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
    if highest == 0:
        raise ValueError(
            f"{pairs[0].mask}: expected at least two classes in the masks, found only 0 and {IGNORE_INDEX}, which is "
            f"ignored; write 0 and 1, or describe the classes in {DESCRIPTION}"
        )
    return highest + 1


def _hash(pair: Pair) -> int:
    return zlib.crc32(pair.image.stem.encode()) % 100


def _is_color(color: Any) -> bool:
    return isinstance(color, list | tuple) and len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color)
