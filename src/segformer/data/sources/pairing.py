"""Pairing by name, for layouts that keep the images of a split in one folder and its masks in another."""

from collections.abc import Callable, Mapping
from pathlib import Path

from segformer.data.dataset import Pair
from segformer.data.image_paths import list_images
from segformer.data.sources.split_lists import find_images, read_split_list
from segformer.errors import UserError

SplitFolders = Mapping[str, tuple[Path, Path]]
"""(folder of images, folder of masks) of each split."""


def check_root(root: str, recognizes: Callable[[Path], bool], layout: str) -> Path:
    """Return the root as a path; if it is not recognized, raises a UserError with the expected layout."""
    path = Path(root)
    if not root or not path.is_dir():
        raise UserError(f"no data folder at '{root}'; expected {layout}; give it with --data NAME=FOLDER")
    if not recognizes(path):
        found = sorted(p.name + "/" * p.is_dir() for p in path.iterdir() if not p.name.startswith("."))
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise UserError(f"{path}: expected {layout}; found {', '.join(found[:8]) or 'nothing'}{more}")
    return path


def has_split(folders: SplitFolders) -> bool:
    """Whether at least one split has both a folder of images and a folder of masks."""
    return any(images.is_dir() and masks.is_dir() for images, masks in folders.values())


def read_splits(folders: SplitFolders) -> dict[str, list[Pair]]:
    """Pairs of every split that has a folder of images."""
    return {split: list_pairs(images, masks) for split, (images, masks) in folders.items() if images.is_dir()}


def list_pairs(images: Path, masks: Path) -> list[Pair]:
    """Pair the images below a folder with the PNG masks of the same names."""
    files = [path.relative_to(images) for path in list_images(images)]
    pairs = [Pair(f.with_suffix("").as_posix(), images / f, masks / f.with_suffix(".png")) for f in files]
    return check_pairs(pairs, images)


def read_split_lists(lists: Path, images: Path, masks: Path) -> dict[str, list[Pair]]:
    """For each list ``<split>.txt`` in the folder ``lists``, pair the images that it names with their PNG masks.

    This is the layout of PASCAL VOC (ImageSets/Segmentation/, JPEGImages/, SegmentationClass/) and similar data sets.
    Raises a UserError if there is no list, for a line that names no image, and for a missing mask.
    """
    paths = sorted(lists.glob("*.txt"))
    if not paths:
        raise UserError(f"{lists}: expected lists of images such as train.txt and val.txt, found none; add them")
    found = find_images(images)
    splits = {path.stem: read_split_list(path, found, images) for path in paths}
    return {
        split: check_pairs([Pair(name, found[name], masks / f"{name}.png") for name in names], images)
        for split, names in splits.items()
        if names
    }


def check_pairs(pairs: list[Pair], images: Path) -> list[Pair]:
    """Return the pairs unchanged; raises a UserError if there are none, or if the mask file of a pair is missing."""
    if not pairs:
        raise UserError(f"{images}: no images found; add the images, or remove the folder")
    for pair in pairs:
        if not pair.mask.is_file():
            raise UserError(f"{pair.mask}: no mask for the image {pair.image}; add it, or remove the image")
    return pairs
