"""Faults planted in a folder of images and masks; each function returns the files that a finding should name."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def image_of(root: Path, index: int = 2, split: str = "train") -> Path:
    return sorted((root / "images" / split).iterdir())[index]


def mask_of(root: Path, index: int = 2, split: str = "train") -> Path:
    return sorted((root / "masks" / split).iterdir())[index]


def remap(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)


def remap_all(root: Path, change: Callable[[np.ndarray], np.ndarray], split: str = "*") -> list[Path]:
    paths = sorted(root.glob(f"masks/{split}/*.png"))
    for path in paths:
        remap(path, change)
    return paths


def description(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "dataset.json").read_text()))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def unreadable_image(root: Path) -> list[Path]:
    truncate(image_of(root))
    return [image_of(root)]


def unreadable_mask(root: Path) -> list[Path]:
    mask_of(root).write_text("no image")
    return [mask_of(root)]


def image_without_mask(root: Path) -> list[Path]:
    mask_of(root).unlink()
    return [image_of(root)]


def mask_without_image(root: Path) -> list[Path]:
    image, mask = image_of(root), mask_of(root)
    for listing in root.glob("train.txt"):
        listing.write_text(listing.read_text().replace(f"{image.stem}\n", ""))
    image.unlink()
    return [mask]


def size_mismatch(root: Path) -> list[Path]:
    remap(mask_of(root), lambda mask: mask[:, :-8])
    return [mask_of(root)]


def out_of_range(root: Path) -> list[Path]:
    remap(mask_of(root), lambda mask: np.where(np.indices(mask.shape).sum(0) < 40, 77, mask))
    return [mask_of(root)]


def binary_mask(root: Path) -> list[Path]:
    (root / "dataset.json").write_text(json.dumps({"classes": ["background", "thing"], "ignore_index": 255}))
    return remap_all(root, lambda mask: np.where(mask == 1, 255, 0))


def off_by_one(root: Path) -> list[Path]:
    return remap_all(root, lambda mask: np.where(mask == 255, 255, mask + 1))


def ignored_mask(root: Path) -> list[Path]:
    remap(mask_of(root), lambda mask: np.full_like(mask, 255))
    return [mask_of(root)]


def absent_class(root: Path) -> list[Path]:
    remap_all(root, lambda mask: np.where(mask == 2, 0, mask), "train")
    return []


def color_mask(root: Path) -> list[Path]:
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(description(root)["palette"])] = description(root)["palette"]
    remap(mask_of(root), lambda mask: colors[mask])
    return [mask_of(root)]


def jpeg_mask(root: Path) -> list[Path]:
    path = mask_of(root)
    jpeg = path.with_suffix(".jpg")
    Image.fromarray(np.asarray(Image.open(path))).save(jpeg)
    path.unlink()
    return [jpeg]


def jpeg_saved_as_png(root: Path) -> list[Path]:
    """With ignored spots, around which a JPEG writes other values."""
    spots = Image.fromarray(np.asarray(Image.open(mask_of(root, 0))))
    ImageDraw.Draw(spots).ellipse((20, 20, 70, 60), 255)
    buffer = io.BytesIO()
    spots.save(buffer, "JPEG", quality=75)
    Image.open(buffer).save(mask_of(root, 0))
    return [mask_of(root, 0)]


def duplicate(root: Path) -> list[Path]:
    copies = [path.with_stem("zz_copy") for path in (image_of(root), mask_of(root))]
    for path, copy in zip((image_of(root), mask_of(root)), copies, strict=True):
        shutil.copy(path, copy)
    for listing in root.glob("train.txt"):
        listing.write_text(listing.read_text() + "zz_copy\n")
    return [image_of(root), copies[0]]


def near_duplicate(root: Path) -> list[Path]:
    image, mask = image_of(root), mask_of(root)
    other = root / "images" / "val" / "zz_near.jpg"
    smaller = tuple(side - 8 for side in Image.open(image).size)
    Image.open(image).resize(smaller, Image.Resampling.BILINEAR).save(other, quality=80)
    Image.open(mask).resize(smaller, Image.Resampling.NEAREST).save(root / "masks" / "val" / "zz_near.png")
    for listing in root.glob("val.txt"):
        listing.write_text(listing.read_text() + "zz_near\n")
    return [image, other]


def mixed_channels(root: Path) -> list[Path]:
    Image.open(image_of(root)).convert("L").save(image_of(root))
    return [image_of(root)]


def exif_rotation(root: Path, orientation: int = 6) -> list[Path]:
    """A photo taken upright whose mask was drawn on the pixels as they are stored."""
    path = image_of(root)
    box = (0, 0, Image.open(path).width, Image.open(path).height - 32)
    remap(mask_of(root), lambda mask: mask[:-32])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).crop(box).save(path, exif=exif)
    return [path]


def exif_half_turn(root: Path) -> list[Path]:
    """A case where the sizes are equal, and only the borders can tell."""
    return exif_rotation(root, orientation=3)


FAULTS = [
    unreadable_image,
    unreadable_mask,
    image_without_mask,
    mask_without_image,
    size_mismatch,
    exif_rotation,
    exif_half_turn,
    color_mask,
    jpeg_mask,
    jpeg_saved_as_png,
    binary_mask,
    off_by_one,
    out_of_range,
    ignored_mask,
    absent_class,
    duplicate,
    near_duplicate,
    mixed_channels,
]
KINDS = {"exif_half_turn": "exif_rotation", "jpeg_saved_as_png": "jpeg_mask"}
WARNINGS = {"mask_without_image", "ignored_mask", "absent_class", "duplicate", "near_duplicate", "mixed_channels"}
WARNINGS.add("exif_half_turn")
