"""What the official layouts share: folders of images and of masks for each split."""

from collections.abc import Callable, Mapping
from pathlib import Path

from segformer.data.dataset import Pair
from segformer.data.images import list_images
from segformer.errors import UserError

Places = Mapping[str, tuple[Path, Path]]
"""Split -> the folder of its images, the folder of its masks."""


def check_root(root: str, fits: Callable[[Path], bool], layout: str) -> Path:
    """Return the root as a path; raises an error with the layout expected and what was found instead of it."""
    path = Path(root)
    if not root or not path.is_dir():
        raise UserError(f"no data folder at '{root}'; expected {layout}; give it with --data NAME=FOLDER")
    if not fits(path):
        found = sorted(p.name + "/" * p.is_dir() for p in path.iterdir() if not p.name.startswith("."))
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise UserError(f"{path}: expected {layout}; found {', '.join(found[:8]) or 'nothing'}{more}")
    return path


def any_split(places: Places) -> bool:
    """Whether at least one split has both of its folders."""
    return any(images.is_dir() and masks.is_dir() for images, masks in places.values())


def read_splits(places: Places) -> dict[str, list[Pair]]:
    """Pairs of every split that has a folder of images."""
    return {split: list_pairs(images, masks) for split, (images, masks) in places.items() if images.is_dir()}


def list_pairs(images: Path, masks: Path) -> list[Pair]:
    """Images with the PNG masks of the same names."""
    files = [path.relative_to(images) for path in list_images(images)]
    pairs = [Pair(f.with_suffix("").as_posix(), images / f, masks / f.with_suffix(".png")) for f in files]
    return check_pairs(pairs, images)


def check_pairs(pairs: list[Pair], images: Path) -> list[Pair]:
    """Return the pairs; raises an error that names a missing mask, or the folder of images where there is none."""
    if not pairs:
        raise UserError(f"{images}: no images found; leave the folder out, or complete it")
    for pair in pairs:
        if not pair.mask.is_file():
            raise UserError(f"{pair.mask}: no mask for the image {pair.image}; add it, or remove the image")
    return pairs
