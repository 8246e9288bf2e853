"""What a data set holds, before anything is made of it: files of each split, and a look at each."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from segformer.arrays import Array
from segformer.config import Color, DataConfig
from segformer.data.dataset import DataSource, Pair, Sample
from segformer.data.decoding import open_image, to_rgb
from segformer.data.doctor.faults import Finding, Look, is_damaged, number
from segformer.data.image_paths import TIFF_SUFFIXES, list_images
from segformer.data.images import displayed
from segformer.data.label_table import MAX_CLASSES, LabelTable
from segformer.data.masks import INDEX_MODES
from segformer.data.raw_images import read_raw, tiff_header
from segformer.data.sources.catalog import open_data, with_data
from segformer.data.sources.description import DESCRIPTION, read_description
from segformer.data.sources.folder_pairs import IMAGES, LISTED, MASK_SUFFIXES, MASKS, hash_splits
from segformer.data.sources.split_lists import find_listed, read_lines, shared_name
from segformer.errors import UserError

Data = str | Path | DataConfig | DataSource

CHANNELS = {"1": "grey", "L": "grey", "LA": "grey + alpha", "La": "grey + alpha", "P": "RGB", "PA": "RGBA"}
CHANNELS |= {"RGBa": "RGBA", "RGBX": "RGB", "I": "16-bit", "F": "float"}
EDGE_FACTOR = 1.1  # right against wrong orientation was 1.14 or more on 167 trials with Dubai's and CamVid's images


@dataclass(frozen=True)
class Item:
    """A sample as found: files that are there, or one to be drawn."""

    split: str
    name: str
    image: Path | None = None
    mask: Path | None = None
    expected_mask: Path | None = None
    drawn: Sample | None = None


@dataclass(frozen=True)
class Survey:
    """A data set before any file is opened; no classes and no table: to be counted in the masks."""

    name: str
    items: list[Item]
    classes: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    table: LabelTable | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def survey_config(config: DataConfig) -> Survey:
    """List the samples of the data set that a config names."""
    by_files = SURVEYS.get(config.dataset)
    if by_files is None:
        return survey_source(open_data(config))
    with suppress(ValueError, OSError):  # the survey of the files will say what is wrong
        source = open_data(config)
        if (
            config.masks
            or config.relabel
            or not all(isinstance(s, Pair) for part in source.splits.values() for s in part)
        ):
            return survey_source(source)  # colours or polygons, which make masks when they are read
    return by_files(config.root)


def survey_source(source: DataSource) -> Survey:
    """List the samples of an open source."""
    items = []
    for split, samples in source.splits.items():
        for sample in samples:
            if isinstance(sample, Pair):
                items.append(Item(split, sample.name, sample.image, sample.mask if sample.mask.is_file() else None))
            else:
                items.append(Item(split, sample.name, drawn=sample))
    return Survey(source.name, items, source.classes, source.palette, source.table, notes=source.notes)


def survey_folder(root: str) -> Survey:
    """List the files of the generic layout; what is out of place becomes a finding."""
    folder = Path(root)
    if not root or not folder.is_dir():
        raise UserError(f"no data folder at '{root}'; expected one with {IMAGES}/ and {MASKS}/")
    missing = [part for part in (IMAGES, MASKS) if not (folder / part).is_dir()]
    if missing:
        problem = f"expected the folders {IMAGES}/ and {MASKS}/, found no {' and no '.join(f'{m}/' for m in missing)}"
        fix = f"put the images into {IMAGES}/train and {IMAGES}/val, the masks into {MASKS}/train and {MASKS}/val"
        return Survey(root, [], findings=(Finding("layout", "error", (root,), problem, fix),))
    items, findings, notes = find_items(folder)
    if not any(item.image for item in items):
        problem = f"no images found in {folder / IMAGES}"
        findings.append(
            Finding("layout", "error", (str(folder / IMAGES),), problem, "add images, with masks of the same names")
        )
    path = folder / DESCRIPTION
    if not path.is_file():
        notes.append(f"no {DESCRIPTION} found: the classes are counted in the masks")
        return Survey(root, items, findings=tuple(findings), notes=tuple(notes))
    try:
        classes, palette, table = read_description(path)
    except ValueError as error:
        problem = str(error).removeprefix(f"{path}: ")
        findings.append(Finding("layout", "error", (str(path),), problem, f"correct {DESCRIPTION}"))
        return Survey(root, items, findings=tuple(findings), notes=tuple(notes))
    return Survey(root, items, classes, palette, table, tuple(findings), tuple(notes))


SURVEYS: dict[str, Callable[[str], Survey]] = {"folder": survey_folder}
"""Surveys that list files one by one, so that one fault does not hide the others, by the name of the data set."""


def find_items(folder: Path) -> tuple[list[Item], list[Finding], list[str]]:
    """Pair the files of each split: folders, else lists, else a hash of the names (as folder.find_splits does)."""
    images, masks = folder / IMAGES, folder / MASKS
    splits = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    lists = [name for name in LISTED if (folder / f"{name}.txt").is_file()]
    findings: list[Finding] = []
    items: list[Item] = []
    if splits:
        loose = tuple(str(path) for path in list_images(images) if path.parent == images)
        if loose:
            problem = f"{number(loose, 'image')} beside the folders of the splits ({', '.join(splits)})"
            findings.append(Finding("layout", "error", loose, problem, "move them into one of these folders"))
        others = sorted(path.name for path in masks.iterdir() if path.is_dir() and not path.name.startswith("."))
        for name in dict.fromkeys([*splits, *others]):
            found, more = pair_files(name, images / name, masks / name, folder / f"{name}.txt")
            items, findings = items + found, findings + more
    elif lists:
        for name in lists:
            found, more = pair_files(name, images, masks, folder / f"{name}.txt")
            orphans = {item.mask for item in items if item.image is None}
            items, findings = (
                items + [item for item in found if item.image or item.mask not in orphans],
                findings + more,
            )
    else:
        found, findings = pair_files("", images, masks, None)
        pairs = [Pair(item.name, item.image, item.image) for item in found if item.image]
        made, notes = hash_splits(pairs)
        split_of = {pair.name: name for name, part in made.items() for pair in part}
        return [replace(item, split=split_of.get(item.name, "train")) for item in found], findings, notes
    return items, findings, []


def pair_files(split: str, images: Path, masks: Path, listing: Path | None) -> tuple[list[Item], list[Finding]]:
    """Put images and masks of the same name together, and keep those that have no partner."""
    found, clashes = by_name(images)
    drawn, _ = by_name(masks)
    findings = []
    if clashes:
        problem = f"{number(clashes, 'image')} with the name of another but for the ending: both would share a mask"
        findings.append(Finding("layout", "error", tuple(clashes), problem, "rename one of each, and its mask"))
    names = list(found)
    if listing is not None and listing.is_file():
        meant = {line: find_listed(line, found, images) for line in read_lines(listing)}
        names = [name for name in meant.values() if name]
        unknown = [line for line, name in meant.items() if not name]
        if unknown:
            problem = (
                f"{listing.name} names {number(unknown, 'image')} that {images} does not have: {', '.join(unknown[:3])}"
            )
            findings.append(Finding("layout", "error", (str(listing),), problem, "correct the list, or add the images"))
    items = []
    for name in names:
        expected, mask = masks / f"{name}.png", drawn.get(name)
        elsewhere = expected if mask is not None and mask.suffix.lower() not in MASK_SUFFIXES else None
        if name in found:
            items.append(Item(split, name, found[name], mask, elsewhere))
    items += [Item(split, name, None, path) for name, path in drawn.items() if name not in found]
    return items, findings


def by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Images below a folder by name, those with the endings of masks first, and those whose name is taken."""
    found: dict[str, Path] = {}
    clashes = []
    for path in sorted(list_images(folder) if folder.is_dir() else [], key=_rank):
        name = shared_name(path, folder)
        if name in found:
            clashes.append(str(path))
        found.setdefault(name, path)
    return dict(sorted(found.items())), clashes


def _rank(path: Path) -> tuple[int, bool, Path]:
    suffix = path.suffix.lower()
    rank = MASK_SUFFIXES.index(suffix) if suffix in MASK_SUFFIXES else len(MASK_SUFFIXES)
    return rank, path.suffix != suffix, path


def look_at(item: Item, cheap: bool) -> Look:
    """Open the files of a sample, or draw it."""
    if item.drawn is not None:
        if cheap:
            return Look(split=item.split, image=item.name, mask=item.name, drawn=True)
        pixels, mask = item.drawn.read()
        drawn = image_facts(pixels) | moments_of(pixels) | label_facts(mask)
        return Look(split=item.split, image=item.name, mask=item.name, drawn=True, size=pixels.shape[:2], **drawn)
    facts: dict[str, Any] = {}
    for name in ("image", "mask", "expected_mask"):
        if (path := getattr(item, name)) is not None:
            facts[name] = str(path)
    if item.image is not None:
        facts |= look_at_image(item, cheap)
    if item.mask is not None and item.image is not None:
        facts |= look_at_mask(item.mask, cheap)
    if cheap and facts.get("size") != facts.get("mask_size"):  # a PNG may say after its pixels how it is turned
        facts["size"] = look_at_image(item, cheap=False).get("size") if item.image else None
    return Look(split=item.split, **facts)


def look_at_image(item: Item, cheap: bool) -> dict[str, Any]:
    """Fields of a Look that an image file gives."""
    assert item.image is not None
    if item.image.suffix.lower() in TIFF_SUFFIXES and is_no_picture(item.image):
        return look_at_tiff(item.image, cheap)
    try:
        image, turn = open_header(item.image) if cheap else opened(item.image)
    except (OSError, ValueError) as error:
        return {"image_error": reason_of(error, item.image)}
    stored = (image.height, image.width)
    facts: dict[str, Any] = {"stored_size": stored, "size": stored[::-1] if turn >= 5 else stored}
    facts["channels"] = channels_of(image)
    if not cheap:
        pixels = to_rgb(image)
        facts |= image_facts(pixels) | moments_of(read_raw(item.image) if is_raw(facts["channels"]) else pixels)
        if turn > 1 and item.mask is not None:
            facts["fits_unturned"] = fits_unturned(image, pixels, item.mask)
    return facts


def is_no_picture(path: Path) -> bool:
    """Whether a TIFF holds other than one channel, or colours of 8 bits; no where the reader of such is missing."""
    with suppress(OSError, ValueError, ModuleNotFoundError):
        _, channels, kind = tiff_header(path)
        return channels != 1 and not (channels in (3, 4) and kind == "uint8")
    return False


def look_at_tiff(path: Path, cheap: bool) -> dict[str, Any]:
    """Fields of a Look at a TIFF that is none of Pillow's kinds."""
    try:
        size, channels, kind = tiff_header(path)
        facts: dict[str, Any] = {"stored_size": size, "size": size, "channels": f"{channels} x {kind}"}
        if not cheap:
            pixels = read_raw(path)
            facts |= image_facts(displayed(pixels)) | moments_of(pixels)
    except (OSError, ValueError) as error:
        return {"image_error": reason_of(error, path)}
    return facts


def is_raw(channels: str) -> bool:
    """Whether images of this kind lose by being read as 8-bit RGB."""
    return channels in ("16-bit", "float") or " x " in channels


def moments_of(pixels: Array) -> dict[str, Any]:
    """Number, sum and sum of squares of each channel's values in an image (H, W, C)."""
    values = pixels.reshape(-1, pixels.shape[2])
    sums = values.sum(0, dtype=np.float64)
    squares = np.einsum("ij,ij->j", values, values, dtype=np.float64, casting="unsafe")
    return {"moments": np.stack([np.full_like(sums, len(values)), sums, squares])}


def look_at_mask(path: Path, cheap: bool) -> dict[str, Any]:
    """Fields of a Look that a mask file gives."""
    try:
        image, _ = open_header(path) if cheap else opened(path)
    except (OSError, ValueError) as error:
        return {"mask_error": reason_of(error, path)}
    facts: dict[str, Any] = {"mask_size": (image.height, image.width), "jpeg": is_jpeg(path)}
    if image.mode not in INDEX_MODES:
        facts["mask_mode"] = image.mode
        return facts if cheap else facts | color_facts(np.asarray(image.convert("RGB")))
    return facts if cheap else facts | label_facts(np.asarray(image))


def opened(path: Path) -> tuple[Image.Image, int]:
    """Decode a file, and say how EXIF turns it."""
    image = open_image(path)
    return image, orientation_of(image)


def open_header(path: Path) -> tuple[Image.Image, int]:
    """Read a file's header only, and say how EXIF turns it (a PNG says it too late for that: 1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                late = image.format == "PNG" and "exif" not in image.info
                return image, 1 if late else orientation_of(image)
        except (SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: {error}") from error


def orientation_of(image: Image.Image) -> int:
    """EXIF's 1 (as stored) to 8; 5 and more exchange height and width.  Pillow turns a TIFF itself."""
    if image.format == "TIFF":
        return 1
    with suppress(SyntaxError, OSError, ValueError):  # an EXIF block that can not be read says nothing
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def reason_of(error: Exception, path: Path) -> str:
    """Return what is wrong with a file, without its name."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error).removeprefix(f"{path}: ").split(";")[0]


def channels_of(image: Image.Image) -> str:
    """Name the channels of an image: RGB, grey, 16-bit ..."""
    if image.mode.startswith("I;16"):
        return "16-bit"
    if image.mode == "P" and "transparency" in image.info:
        return "RGBA"
    return CHANNELS.get(image.mode, image.mode)


def is_jpeg(path: Path) -> bool:
    """Whether a file holds a JPEG, whatever its name."""
    with path.open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def image_facts(pixels: Array) -> dict[str, Any]:
    """Digest, difference hash and thumbnail of an image (H, W, 3)."""
    grey = Image.fromarray(pixels).convert("L")
    steps = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=str(pixels.shape).encode()[:16]).digest()
    thumbnail = np.asarray(grey.resize((16, 16), Image.Resampling.BOX))
    return {"digest": digest, "bits": (steps[:, 1:] > steps[:, :-1]).ravel(), "thumbnail": thumbnail}


def label_facts(mask: Array) -> dict[str, Any]:
    """Ids of a mask (H, W) and how many pixels each has."""
    if mask.dtype in (np.uint8, bool):
        counts = np.bincount(mask.ravel().astype(np.uint8), minlength=256)
        ids = np.flatnonzero(counts)
        return {"mask_size": mask.shape, "ids": ids, "counts": counts[ids]}
    ids, counts = np.unique(mask.astype(np.int64), return_counts=True)
    return {"mask_size": mask.shape, "ids": ids, "counts": counts}


def color_facts(pixels: Array) -> dict[str, Any]:
    """Number of distinct colours, and the most frequent ones."""
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    values, counts = np.unique(packed, return_counts=True)
    top = values[np.argsort(-counts, kind="stable")][:32].tolist()
    return {"num_colors": len(values), "colors": tuple((v >> 16, v >> 8 & 255, v & 255) for v in top)}


def fits_unturned(image: Image.Image, turned: Array, path: Path) -> bool:
    """Whether the mask's borders lie on the edges of the stored image rather than on those of the turned one."""
    try:
        mask = open_image(path)
    except (OSError, ValueError):
        return False
    if mask.size != image.size or mask.size != turned.shape[1::-1] or mask.mode not in INDEX_MODES:
        return False
    labels = np.asarray(mask).astype(np.int32)
    as_stored = edge_contrast(np.asarray(image.convert("RGB").convert("L")), labels)
    return as_stored > EDGE_FACTOR * edge_contrast(np.asarray(Image.fromarray(turned).convert("L")), labels)


def edge_contrast(grey: Array, mask: Array) -> float:
    """Mean step of the grey values across the mask's borders over the mean step everywhere."""
    steps = [np.abs(np.diff(grey.astype(np.float32), axis=axis)).ravel() for axis in (0, 1)]
    borders = [(np.diff(mask, axis=axis) != 0).ravel() for axis in (0, 1)]
    step, border = np.concatenate(steps), np.concatenate(borders)
    return float(step[border].mean() / max(step.mean(), 1e-6)) if border.any() else 0.0


def split_rank(item: Item) -> int:
    """Train before val before test before others."""
    return LISTED.index(item.split) if item.split in LISTED else len(LISTED)


def as_config(data: Data) -> DataConfig:
    """Return the config that means the data; of an open source the names of its splits are all that counts."""
    if isinstance(data, DataConfig):
        return data
    return DataConfig() if isinstance(data, DataSource) else with_data(DataConfig(), str(data))


def counted_classes(looks: Sequence[Look]) -> tuple[tuple[str, ...], LabelTable | None]:
    """Classes 0 to the highest id in the masks, as folder.count_classes has it; none where no mask was decoded."""
    seen = [look.ids for look in looks if look.ids is not None and not is_damaged(look, None, counted=True)]
    if not seen:
        return (), None
    ids = np.concatenate(seen)
    highest = int(ids[(ids >= 0) & (ids < MAX_CLASSES)].max(initial=0))
    return tuple(f"class_{k}" for k in range(highest + 1)), LabelTable.identity(highest + 1)
