"""A folder of images and masks: the generic layout.

    images/<split>/*.jpg   masks/<split>/*.png   dataset.json (classes, palette, ignore_index)   <split>.txt

Without dataset.json the classes are counted in the masks; without splits a hash of each name makes two.  A mask may
also hold colours (named in dataset.json or a palette file), or be a labelme or Cityscapes JSON, beside the image or in
masks/; a COCO JSON may stand for all masks.
"""

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer.config import IGNORE_INDEX, Color, default_palette
from segformer.data.color_masks import PALETTE_FILES, ColorPair, find_palette, read_palette
from segformer.data.dataset import MAX_CLASSES, DataSource, LabelTable, Pair
from segformer.data.images import list_images, read_mask
from segformer.data.polygons import BACKGROUND, PolygonPair, is_coco, read_coco, read_shapes
from segformer.files import read_json

Array = NDArray[Any]
P = TypeVar("P", Pair, PolygonPair)
IMAGES, MASKS, DESCRIPTION = "images", "masks", "dataset.json"
LISTED = ("train", "val", "test")
VAL_PERCENT = 20
MAX_ID = 65_535


def fits(root: Path) -> bool:
    """Whether a folder looks like the generic layout."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def open_source(root: str, masks: str = "") -> DataSource:
    """Read the layout below ``root``; ``masks`` is where masks lie if not in masks/ there.

    Raises FileNotFoundError or ValueError that name what is missing.
    """
    folder = Path(root)
    if not root or not folder.is_dir():
        raise FileNotFoundError(f"no data folder at '{root}'; give one with --data FOLDER")
    if not (folder / IMAGES).is_dir():
        raise ValueError(f"{folder}: expected the folders {IMAGES}/ and {MASKS}/, found no {IMAGES}/")
    coco = coco_files(folder)
    labels = Path(masks) if masks else folder / MASKS
    if not labels.is_dir():
        if masks or not (coco or any((folder / IMAGES).rglob("*.json"))):
            raise ValueError(f"{folder}: expected the folders {IMAGES}/ and {MASKS}/, found no {masks or MASKS}/")
        if coco:
            return open_coco(folder, coco)
        labels = folder / IMAGES  # labelme writes its files beside the images
    splits, notes = find_splits(folder, labels)
    return describe(folder, splits, notes)


def describe(folder: Path, splits: dict[str, list[Pair]], notes: list[str]) -> DataSource:
    """Find out the classes, and how masks hold them: as indices, as colours, or as polygons."""
    pairs = [pair for pairs in splits.values() for pair in pairs]
    path, palette = folder / DESCRIPTION, find_palette(folder)
    if pairs[0].mask.suffix == ".json":
        return polygon_source(folder, splits, notes)
    if mode_of(pairs[0].mask) in ("RGB", "RGBA"):
        if path.is_file():
            classes, colors, _ = read_description(path)
            void: tuple[Color, ...] = ()
        elif palette:
            classes, colors, void = read_palette(palette)
        else:
            raise ValueError(
                f"{pairs[0].mask}: expected an index mask, got colours; name the class of each colour in "
                f"{folder / PALETTE_FILES[2]}, a line each: road 128 64 128"
            )
        found = {
            split: [ColorPair(pair.name, pair.image, pair.mask, colors, void) for pair in pairs]
            for split, pairs in splits.items()
        }
        return DataSource(str(folder), classes, colors, LabelTable.identity(len(classes)), found, tuple(notes))
    if path.is_file():
        return DataSource(str(folder), *read_description(path), splits, tuple(notes))
    names = tuple(f"class_{k}" for k in range(count_classes((pair.mask, read_mask(pair.mask)) for pair in pairs)))
    notes = [*notes, f"no {DESCRIPTION} found: {len(names)} classes counted in the masks, {names[0]} ... {names[-1]}"]
    table = LabelTable.identity(len(names))
    return DataSource(str(folder), names, default_palette(len(names)), table, splits, tuple(notes))


def polygon_source(folder: Path, splits: dict[str, list[Pair]], notes: list[str]) -> DataSource:
    """Classes of labelme or Cityscapes files: those of dataset.json, else the background and the labels, sorted."""
    shapes = {pair.mask: read_shapes(pair.mask) for pairs in splits.values() for pair in pairs}
    labels = sorted({label for found, _ in shapes.values() for label, _ in found} - {BACKGROUND})
    classes: tuple[str, ...] = (BACKGROUND, *labels)
    colors, table = default_palette(len(classes)), LabelTable.identity(len(classes))
    if (folder / DESCRIPTION).is_file():
        classes, colors, table = read_description(folder / DESCRIPTION)
        for mask, (found, _) in shapes.items():
            if unknown := sorted({label for label, _ in found} - set(classes)):
                raise ValueError(f"{mask}: the label '{unknown[0]}' is no class of {DESCRIPTION}; add it there")
    else:
        notes = [*notes, f"{len(classes)} classes from polygons: {', '.join(classes)}"]
    found_pairs = {
        split: [PolygonPair(pair.name, pair.image, pair.mask, *shapes[pair.mask], classes) for pair in pairs]
        for split, pairs in splits.items()
    }
    return DataSource(str(folder), classes, colors, table, found_pairs, tuple(notes))


def coco_files(folder: Path) -> list[Path]:
    """Return the COCO JSON files at the root or in annotations/."""
    candidates = [*sorted(folder.glob("*.json")), *sorted((folder / "annotations").glob("*.json"))]
    return [path for path in candidates if path.name not in (DESCRIPTION, *PALETTE_FILES) and is_coco(path)]


def open_coco(folder: Path, files: Sequence[Path]) -> DataSource:
    """One file for each folder of images whose name it holds (train, instances_train.json), or one for all."""
    images = folder / IMAGES
    splits = sorted(p.name for p in images.iterdir() if p.is_dir())
    found: dict[str, list[PolygonPair]] = {}
    classes: tuple[str, ...] = ()
    for path in files:
        split = next((name for name in (*splits, *LISTED) if name in path.stem), "")
        below = images / split if split in splits else images
        found[split], names = read_coco(path, below)
        if classes and names != classes:
            raise ValueError(f"{path}: expected the categories of {files[0].name}, got {', '.join(names[1:])}")
        classes = names
    notes = [f"{len(classes)} classes from polygons: {', '.join(classes)}"]
    if list(found) == [""]:
        halves, more = hash_splits(found[""])
        found, notes = halves, [*notes, *more]
    elif "" in found:
        raise ValueError(f"{folder}: expected the name of a split (train, val) in the name of each COCO file")
    table = LabelTable.identity(len(classes))
    return DataSource(str(folder), classes, default_palette(len(classes)), table, found, tuple(notes))


def mode_of(path: Path) -> str:
    """Return the kind of pixels of an image, from its first bytes."""
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError):
        return "unreadable"  # reading it will say what is wrong


def find_splits(folder: Path, masks: Path) -> tuple[dict[str, list[Pair]], list[str]]:
    """Pairs of each split, and notes for the user.

    The splits are the folders below images/; without such, the lists train.txt, val.txt and test.txt; without
    these, two that are made by a hash.
    """
    images = folder / IMAGES
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


def hash_splits(pairs: Sequence[P]) -> tuple[dict[str, list[P]], list[str]]:
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
        mask = next((p for p in (masks / f"{name}.png", masks / f"{name}.json") if p.is_file()), masks / f"{name}.png")
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


def count_classes(masks: Iterable[tuple[object, Array]]) -> int:
    """One more than the highest id in the masks (name, (H, W) ids), 255 apart.

    Raises a ValueError that names a mask with an id beyond that, and where there are fewer than two classes.
    """
    highest, name = 0, None
    for name, mask in masks:
        ids = np.unique(mask)
        ids = ids[ids != IGNORE_INDEX]
        if len(ids) and ids[-1] >= MAX_CLASSES:
            raise ValueError(f"{name}: expected labels 0-{MAX_CLASSES - 1} or {IGNORE_INDEX} (ignored), got {ids[-1]}")
        highest = max(highest, int(ids[-1]) if len(ids) else 0)
    if highest == 0:
        raise ValueError(
            f"{name}: expected at least two classes in the masks, found only 0 and {IGNORE_INDEX}, which is "
            f"ignored; write 0 and 1 instead"
        )
    return highest + 1


def _hash(pair: Pair | PolygonPair) -> int:
    return zlib.crc32(pair.image.stem.encode()) % 100


def _is_color(color: Any) -> bool:
    return isinstance(color, list | tuple) and len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color)
