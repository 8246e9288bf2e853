"""Images and masks of a generic folder, paired by name within each split."""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from segformer.data.dataset import Pair
from segformer.data.image_paths import list_images
from segformer.data.sources.split_lists import find_images, read_split_list, shared_name
from segformer.errors import UserError

IMAGES, MASKS = "images", "masks"
LISTED = ("train", "val", "test")  # splits that may have a list
MASK_SUFFIXES = (".png", ".json", ".bmp", ".tif", ".tiff")  # in order of preference, if an image has several
UNFIT_SUFFIXES = (".jpg", ".jpeg", ".gif")  # JPEG blurs labels, and GIF writers renumber the colors
VAL_PERCENT = 20


class Named(Protocol):
    """Anything with a name and an image file."""

    @property
    def name(self) -> str:
        """Name of the sample in messages."""
        ...

    @property
    def image(self) -> Path:
        """Path of the image file."""
        ...


P = TypeVar("P", bound=Named)


def find_splits(folder: Path, masks: Path) -> tuple[dict[str, list[Pair]], list[str]]:
    """Return (pairs of each split, notes for the user).

    The splits are the folders in images/.  If there are none, the lists train.txt, val.txt and test.txt define them.
    Without lists, a hash of each name assigns the image to train or val.
    """
    images = folder / IMAGES
    splits = list_splits(images)
    loose = [path.name for path in list_images(images) if path.parent == images]
    if splits and loose:
        raise UserError(
            f"{images}: expected either one folder per split or images, found both, such as {splits[0]}/ and "
            f"{loose[0]}; move the images into the folders of the splits"
        )
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
    """Assign pairs to train and val by a hash of each name; returns (pairs of each split, notes for the user).

    About a fifth of the pairs becomes val.  If there are at least two pairs, each split gets at least one.
    """
    ranked = sorted(pairs, key=lambda pair: (_hash(pair.image) >= VAL_PERCENT, pair.name))
    in_val = sum(_hash(pair.image) < VAL_PERCENT for pair in pairs)
    if len(pairs) >= 2:
        in_val = min(max(in_val, 1), len(pairs) - 1)
    note = f"no splits found: {in_val} of {len(pairs)} images are held out as val (by a hash of their names)"
    return {"train": ranked[in_val:], "val": ranked[:in_val]}, [note]


def find_pairs(images: Path, masks: Path, split_list: Path | None) -> list[Pair]:
    """Images with their masks: the images that the split list names, or all if there is no list.

    Raises a UserError for a line of the list that names no image, and for an image without a mask.
    """
    suffixes = (".json",) if masks == images else MASK_SUFFIXES
    found = find_images(images)
    drawn = find_masks(masks, suffixes)
    listed = split_list is not None and split_list.is_file()
    names = read_split_list(split_list, found, images) if listed and split_list else list(found)
    for name in names:
        if name not in drawn:
            unfit = None if masks == images else find_masks(masks, UNFIT_SUFFIXES).get(name)
            raise UserError(missing_mask(masks / name, found[name], suffixes, unfit))
    return [Pair(name, found[name], drawn[name]) for name in names]


def missing_mask(mask: Path, image: Path, suffixes: Sequence[str], unfit: Path | None) -> str:
    """Return the error message for an image without a mask.

    ``mask`` is the expected path without its ending; ``unfit`` is a mask in an unsuitable format, if one was found.
    """
    looked = ", ".join(mask.name + suffix for suffix in suffixes)
    if unfit is None:
        return f"{mask}{suffixes[0]}: no mask for the image {image} (looked for {looked}); add it, or remove the image"
    return (
        f"{mask}{suffixes[0]}: no mask for the image {image} (looked for {looked}; {unfit.name} cannot be used: "
        f"JPEG and GIF change labels); export the mask as PNG"
    )


def find_masks(masks: Path, suffixes: tuple[str, ...] = MASK_SUFFIXES) -> dict[str, Path]:
    """Masks below a folder, by name; of several with the same name, the first one in the order of ``suffixes``."""
    files = sorted(list_masks(masks, suffixes), key=lambda path: (-suffixes.index(path.suffix.lower()), path.name))
    return {shared_name(path, masks): path for path in files}  # of several files with one name, the last stays


def list_masks(folder: Path, suffixes: tuple[str, ...] = MASK_SUFFIXES + UNFIT_SUFFIXES) -> Iterator[Path]:
    """Yield the files below a folder that have one of the endings, in upper or lower case; skips hidden files."""
    for parent, folders, files in os.walk(folder):  # needs no stat of each file, so it is fast for 100,000 files
        folders[:] = (name for name in folders if not name.startswith("."))
        found = (name for name in files if name.lower().endswith(suffixes) and not name.startswith("."))
        yield from map(Path(parent).joinpath, found)


def list_splits(images: Path) -> list[str]:
    """Return the sorted names of the folders in images/, each of which is a split; skips hidden folders."""
    return sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))


def _hash(image: Path) -> int:
    return zlib.crc32(os.fsencode(image.stem)) % 100
