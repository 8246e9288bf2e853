"""The generic layout: a folder of images and masks.

    images/<split>/*.jpg   masks/<split>/*.png   dataset.json (classes, palette, ignore_index)   <split>.txt

Without dataset.json, the classes are counted in the masks.  Without splits, a hash of each name assigns the image to
train or val.  Masks may also contain colors; then dataset.json or a palette file names the class of each color.  Or the
masks may be labelme or Cityscapes JSON files, in masks/ or beside the images.  If there are none of these, COCO JSON
files may describe the masks.
"""

from pathlib import Path

from PIL import Image

from segformer.config import Color, default_palette
from segformer.data.dataset import DataSource, Pair
from segformer.data.label_table import LabelTable
from segformer.data.masks import read_mask
from segformer.data.sources.coco_files import find_coco, open_coco
from segformer.data.sources.color_masks import PALETTE_FILES, ColorPair, find_palette, read_palette
from segformer.data.sources.description import DESCRIPTION, count_classes, read_description, unnamed_classes
from segformer.data.sources.folder_pairs import IMAGES, MASKS, find_splits, list_masks
from segformer.data.sources.labelme import read_shapes
from segformer.data.sources.polygons import BACKGROUND, PolygonPair
from segformer.errors import UserError

Splits = dict[str, list[Pair]]


def recognizes(root: Path) -> bool:
    """Whether a folder contains images/ and masks/."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def open_source(root: str, masks: str = "") -> DataSource:
    """Open the images in ``root`` and their masks, which are in the folder ``masks`` or, if it is "", in ``root``.

    Raises a UserError that names what is missing.
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
    return open_pairs(folder, splits, notes)


def open_pairs(folder: Path, splits: Splits, notes: list[str]) -> DataSource:
    """Open pairs whose masks contain polygons, colors or class indices; all masks are read as the kind of the first."""
    first = next(pair for pairs in splits.values() for pair in pairs)
    if first.mask.suffix.lower() == ".json":
        return open_polygons(folder, splits, notes)
    if mode_of(first.mask) in ("RGB", "RGBA"):
        return open_colors(folder, splits, notes)
    if (folder / DESCRIPTION).is_file():
        return DataSource(str(folder), *read_description(folder / DESCRIPTION), splits, tuple(notes))
    masks = (pair.mask for pairs in splits.values() for pair in pairs)
    classes, palette, table = unnamed_classes(count_classes((mask, read_mask(mask)) for mask in masks))
    note = f"no {DESCRIPTION} found: {len(classes)} classes counted in the masks, {classes[0]} ... {classes[-1]}"
    return DataSource(str(folder), classes, palette, table, splits, (*notes, note))


def open_colors(folder: Path, splits: Splits, notes: list[str]) -> DataSource:
    """Open pairs with color masks; dataset.json or else a palette file names the class of each color."""
    palette = find_palette(folder)
    void: tuple[Color, ...] = ()
    if (folder / DESCRIPTION).is_file():
        classes, colors, _ = read_description(folder / DESCRIPTION)
    elif palette:
        classes, colors, void = read_palette(palette)
    else:
        mask = next(pair.mask for pairs in splits.values() for pair in pairs)
        raise UserError(
            f"{mask}: expected an index mask, got colors; name the class of each color in "
            f"{folder / PALETTE_FILES[2]}, one per line: road 128 64 128"
        )
    found = {
        split: [ColorPair(pair.name, pair.image, pair.mask, colors, void) for pair in pairs]
        for split, pairs in splits.items()
    }
    return DataSource(str(folder), classes, colors, LabelTable.identity(len(classes)), found, tuple(notes))


def open_polygons(folder: Path, splits: Splits, notes: list[str]) -> DataSource:
    """Open pairs with labelme or Cityscapes files; without dataset.json, all labels found become classes."""
    shapes = {pair.mask: read_shapes(pair.mask) for pairs in splits.values() for pair in pairs}
    labels = sorted({label for found, _ in shapes.values() for label, _ in found} - {BACKGROUND})
    classes: tuple[str, ...] = (BACKGROUND, *labels)
    colors = default_palette(len(classes))
    table = LabelTable.identity(len(classes))
    if (folder / DESCRIPTION).is_file():
        classes, colors, table = read_description(folder / DESCRIPTION)
        for mask, (found, _) in shapes.items():
            if unknown := sorted({label for label, _ in found} - set(classes)):
                raise UserError(f"{mask}: the label '{unknown[0]}' is not a class in {DESCRIPTION}; add it there")
    else:
        notes = [*notes, f"{len(classes)} classes from polygons: {', '.join(classes)}"]
    pairs_of = {
        split: [PolygonPair(pair.name, pair.image, pair.mask, *shapes[pair.mask], classes) for pair in pairs]
        for split, pairs in splits.items()
    }
    return DataSource(str(folder), classes, colors, table, pairs_of, tuple(notes))


def mode_of(path: Path) -> str:
    """Return Pillow's mode of an image, such as "RGB", from its header; "unreadable" if the header cannot be read."""
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError):
        return "unreadable"  # reading the mask later reports what is wrong
