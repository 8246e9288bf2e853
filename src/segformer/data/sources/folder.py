"""A folder of images and masks: the generic layout.

    images/<split>/*.jpg   masks/<split>/*.png   dataset.json (classes, palette, ignore_index)   <split>.txt

Without dataset.json the classes are counted in the masks; without splits a hash of each name makes two.  A mask may
also hold colours (named in dataset.json or a palette file), or be a labelme or Cityscapes JSON, beside the image or in
masks/; where masks/ holds none, a COCO JSON may stand for all.
"""

import os
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Color, default_palette
from segformer.data.dataset import MAX_CLASSES, DataSource, LabelTable, Pair
from segformer.data.images import IMAGE_SUFFIXES, list_images, read_mask
from segformer.data.sources.color_masks import PALETTE_FILES, ColorPair, find_palette, read_palette
from segformer.data.sources.polygons import BACKGROUND, PolygonPair, has_areas, is_coco, read_coco, read_shapes
from segformer.errors import UserError
from segformer.files import read_json

P = TypeVar("P", Pair, PolygonPair)
IMAGES, MASKS, DESCRIPTION = "images", "masks", "dataset.json"
LISTED = ("train", "val", "test")
MASK_SUFFIXES = (".png", ".json", ".bmp", ".tif", ".tiff")  # of several, the first is taken
UNFIT_SUFFIXES = (".jpg", ".jpeg", ".gif")  # JPEG blurs labels, and writers of GIF number its colours anew
VAL_PERCENT = 20
MAX_ID = 65_535


def fits(root: Path) -> bool:
    """Whether a folder looks like the generic layout."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def open_source(root: str, masks: str = "") -> DataSource:
    """Read the layout below ``root``; ``masks`` is where masks lie if not in masks/ there.

    Raises UserError that name what is missing.
    """
    folder = Path(root)
    if not root or not folder.is_dir():
        raise UserError(f"no data folder at '{root}'; give one with --data FOLDER")
    if not (folder / IMAGES).is_dir():
        raise UserError(f"{folder}: expected the folders {IMAGES}/ and {MASKS}/, found no {IMAGES}/")
    labels = Path(masks) if masks else folder / MASKS
    if not masks and not any(list_masks(labels)):
        coco, notes = find_coco(folder)
        if coco:
            return open_coco(folder, coco, notes)
        if any(list_masks(folder / IMAGES, (".json",))):
            labels = folder / IMAGES  # labelme writes its files beside the images
    if not labels.is_dir():
        raise UserError(f"{folder}: expected the folders {IMAGES}/ and {MASKS}/, found no {masks or MASKS}/")
    splits, notes = find_splits(folder, labels)
    return describe(folder, splits, notes)


def describe(folder: Path, splits: dict[str, list[Pair]], notes: list[str]) -> DataSource:
    """Find out the classes, and how masks hold them: as indices, as colours, or as polygons."""
    pairs = [pair for pairs in splits.values() for pair in pairs]
    path, palette = folder / DESCRIPTION, find_palette(folder)
    if pairs[0].mask.suffix.lower() == ".json":
        return polygon_source(folder, splits, notes)
    if mode_of(pairs[0].mask) in ("RGB", "RGBA"):
        if path.is_file():
            classes, colors, _ = read_description(path)
            void: tuple[Color, ...] = ()
        elif palette:
            classes, colors, void = read_palette(palette)
        else:
            raise UserError(
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
                raise UserError(f"{mask}: the label '{unknown[0]}' is no class of {DESCRIPTION}; add it there")
    else:
        notes = [*notes, f"{len(classes)} classes from polygons: {', '.join(classes)}"]
    found_pairs = {
        split: [PolygonPair(pair.name, pair.image, pair.mask, *shapes[pair.mask], classes) for pair in pairs]
        for split, pairs in splits.items()
    }
    return DataSource(str(folder), classes, colors, table, found_pairs, tuple(notes))


def find_coco(folder: Path) -> tuple[dict[str, tuple[Path, Any]], list[str]]:
    """The COCO file of each split, or of "" for all, parsed; and a note where other JSON was left out.

    A split's file, at the root or in annotations/, has its name in its own: train, instances_train.json.
    """
    places = [*sorted(folder.glob("*.json")), *sorted((folder / "annotations").glob("*.json"))]
    paths = [p for p in places if p.name not in (DESCRIPTION, *PALETTE_FILES) and not p.name.startswith(".")]
    known = (*list_splits(folder / IMAGES), *LISTED)
    grouped: dict[str, list[Path]] = {}
    for path in paths:
        grouped.setdefault(next((name for name in known if name in path.stem), ""), []).append(path)
    if any(map(_is_named, paths)) and not any(map(_is_named, grouped.get("", []))):
        grouped.pop("", None)
    chosen = {split: file for split, group in grouped.items() if (file := choose_coco(group))}
    used = [path for path, _ in chosen.values()]
    ignored = ", ".join(path.name for path in paths if path not in used)
    return chosen, [f"masks from {', '.join(p.name for p in used)}; left out {ignored}"] if ignored else []


def choose_coco(paths: Sequence[Path]) -> tuple[Path, Any] | None:
    """Of JSON files for one split the COCO file named instances..., else the one with polygons, parsed.

    Raises a UserError where several remain.
    """
    named = [path for path in paths if _is_named(path)]
    parsed = ((path, read_json(path)) for path in named or paths)
    files = [(path, values) for path, values in parsed if named or is_coco(values)]
    if len(files) > 1:
        files = [(path, values) for path, values in files if has_areas(values)] or files
    if len(files) > 1:
        names = ", ".join(path.name for path, _ in files)
        raise UserError(
            f"{files[0][0].parent}: expected one COCO file for each split, got {names}; move the others away, or "
            f"write the split (train, val) into their names"
        )
    return files[0] if files else None


def open_coco(folder: Path, files: Mapping[str, tuple[Path, Any]], notes: Sequence[str]) -> DataSource:
    """Images with their COCO files, parsed: one a split, for images/<split>/ or images/, or one for all."""
    found: dict[str, list[PolygonPair]] = {}
    classes: tuple[str, ...] = ()
    if "" in files and len(files) > 1:
        raise UserError(f"{files[''][0]}: expected the name of a split (train, val) in its name; rename or remove it")
    for split, (path, values) in files.items():
        below = folder / IMAGES / split
        found[split], names = read_coco(path, values, below if below.is_dir() else folder / IMAGES)
        if classes and names != classes:
            raise UserError(f"{path}: expected the categories {', '.join(classes[1:])}, got {', '.join(names[1:])}")
        classes = names
    notes = [*notes, f"{len(classes)} classes from polygons: {', '.join(classes)}"]
    if "" in found:
        found, more = hash_splits(found[""])
        notes += more
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
    splits = list_splits(images)
    loose = [path.name for path in list_images(images) if path.parent == images]
    if splits and loose:
        raise UserError(f"{images}: expected folders of splits or images, found both, e.g. {splits[0]}/ and {loose[0]}")
    if splits:
        found = {name: find_pairs(images / name, masks / name, folder / f"{name}.txt") for name in splits}
    else:
        lists = [path for path in (folder / f"{name}.txt" for name in LISTED) if path.is_file()]
        found = {path.stem: find_pairs(images, masks, path) for path in lists}
    pairs = [] if found else find_pairs(images, masks, None)
    if not (pairs or any(found.values())):
        raise UserError(f"{images}: no images found; expected images, with masks of the same names in {masks}")
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
    """Images with their masks: those that the listing holds, one a line, or all.

    Raises UserError for a line without an image and an image without a mask.
    """
    suffixes = (".json",) if masks == images else MASK_SUFFIXES
    found, drawn = find_images(images), find_masks(masks, suffixes)
    names = list(found) if listing is None or not listing.is_file() else read_listing(listing, found, images)
    for name in names:
        if name not in drawn:
            unfit = None if masks == images else find_masks(masks, UNFIT_SUFFIXES).get(name)
            raise UserError(no_mask(masks / name, found[name], suffixes, unfit))
    return [Pair(name, found[name], drawn[name]) for name in names]


def no_mask(mask: Path, image: Path, suffixes: Sequence[str], unfit: Path | None) -> str:
    """Say that an image has no mask (its path without the ending), and which were looked for."""
    looked, found, fix = ", ".join(mask.name + suffix for suffix in suffixes), "", "add it, or remove the image"
    if unfit is not None:
        found, fix = f"; {unfit.name} can't be used: JPEG and GIF change labels", "make it again as PNG"
    return f"{mask}{suffixes[0]}: no mask for the image {image} (looked for {looked}{found}); {fix}"


def find_images(images: Path) -> dict[str, Path]:
    """Images below a folder by name: the path without the ending; raises a UserError where two share one."""
    found: dict[str, Path] = {}
    for path in list_images(images):
        name = name_of(path, images)
        if name in found:
            raise UserError(f"{path} and {found[name].name} would share a mask; rename one")
        found[name] = path
    return found


def find_masks(masks: Path, suffixes: tuple[str, ...] = MASK_SUFFIXES) -> dict[str, Path]:
    """Masks below a folder by name; of several, the one whose ending comes first."""
    files = sorted(list_masks(masks, suffixes), key=lambda path: (-suffixes.index(path.suffix.lower()), path.name))
    return {name_of(path, masks): path for path in files}  # the last of several stays


def list_masks(folder: Path, suffixes: tuple[str, ...] = MASK_SUFFIXES + UNFIT_SUFFIXES) -> Iterator[Path]:
    """Files below a folder with one of the endings, in either case; hidden ones left out."""
    for place, folders, files in os.walk(folder):  # lists a folder once and asks for no file, quick for 100,000
        folders[:] = (name for name in folders if not name.startswith("."))
        found = (name for name in files if name.lower().endswith(suffixes) and not name.startswith("."))
        yield from map(Path(place).joinpath, found)


def name_of(path: Path, folder: Path) -> str:
    """What an image and its mask share: the path below their folders without the ending, spelled as NFC.

    macOS writes names as NFD: a letter and its accent apart.
    """
    return unicodedata.normalize("NFC", path.relative_to(folder).as_posix().removesuffix(path.suffix))


def read_listing(listing: Path, found: Mapping[str, Path], images: Path) -> list[str]:
    """Names of the images that a list holds, one a line; raises UserError for a line that means none."""
    names = []
    for line in read_lines(listing):
        name = find_listed(line, found, images)
        if name is None:
            raise UserError(f"{listing}: names '{line}', but there is no such image in {images}")
        names.append(name)
    return names


def read_lines(listing: Path) -> list[str]:
    """Lines of a list that are not empty; bytes other than UTF-8 become what they are in the names of files."""
    text = listing.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [line.strip() for line in text.splitlines() if line.strip()]


def find_listed(line: str, found: Mapping[str, Path], images: Path) -> str | None:
    """Which of the images a line of a list means: a name, or one with its ending, or a path through their folder.

    None where it is no image's, or a path that could be of two.
    """
    path = PurePosixPath(unicodedata.normalize("NFC", line))
    if str(path) in found:
        return str(path)
    bare = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    if str(bare) in found:
        return str(bare)
    below = [str(bare.relative_to(above)) for above in bare.parents if above.name == images.name]
    names = [name for name in below if name in found]
    return names[0] if len(names) == 1 else None


def read_description(path: Path) -> tuple[tuple[str, ...], tuple[Color, ...], LabelTable]:
    """Classes, palette and label table of a dataset.json; raises a UserError that names it and the field at fault."""
    values = read_json(path)
    classes = values.get("classes") if isinstance(values, dict) else None
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f'{path}: expected "classes", a list of names')
    if len(classes) > MAX_CLASSES:
        raise UserError(f"{path}: expected at most {MAX_CLASSES} classes, got {len(classes)}")
    palette = values.get("palette", default_palette(len(classes)))
    if not isinstance(palette, list | tuple) or len(palette) != len(classes) or not all(map(_is_color, palette)):
        raise UserError(f'{path}: expected "palette" to hold {len(classes)} colours [red, green, blue] of 0-255')
    ignore = values.get("ignore_index", IGNORE_INDEX)
    if type(ignore) is not int or not 0 <= ignore <= MAX_ID:
        raise UserError(f'{path}: expected "ignore_index" to be an id of 0-{MAX_ID}, got {ignore!r}')
    return tuple(classes), tuple(tuple(color) for color in palette), LabelTable.identity(len(classes), ignore)


def count_classes(masks: Iterable[tuple[object, Array]]) -> int:
    """One more than the highest id in the masks (name, (H, W) ids), 255 apart.

    Raises a UserError that names a mask with an id beyond that, and where there are fewer than two classes.
    """
    highest, name = 0, None
    for name, mask in masks:
        ids = np.unique(mask)
        ids = ids[ids != IGNORE_INDEX]
        if len(ids) and ids[-1] >= MAX_CLASSES:
            raise UserError(f"{name}: expected labels 0-{MAX_CLASSES - 1} or {IGNORE_INDEX} (ignored), got {ids[-1]}")
        highest = max(highest, int(ids[-1]) if len(ids) else 0)
    if highest == 0:
        raise UserError(
            f"{name}: expected at least two classes in the masks, found only 0 and {IGNORE_INDEX}, which is "
            f"ignored; write 0 and 1 instead"
        )
    return highest + 1


def list_splits(images: Path) -> list[str]:
    """Names of the folders below images/."""
    return sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_named(path: Path) -> bool:
    return path.name.startswith("instances")


def _hash(pair: Pair | PolygonPair) -> int:
    return zlib.crc32(os.fsencode(pair.image.stem)) % 100


def _is_color(color: Any) -> bool:
    return isinstance(color, list | tuple) and len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color)
