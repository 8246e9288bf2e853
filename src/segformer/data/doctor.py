"""A look at a data set before any training: what is wrong, what is in it, and two sheets of pictures.

A folder in the generic layout is read file by file, so that one fault does not hide the others.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont, UnidentifiedImageError
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from segformer.config import IGNORE_INDEX, Color, DataConfig, Recipe, default_palette
from segformer.data.catalog import open_data, with_data
from segformer.data.dataset import MAX_CLASSES, DataSource, LabelTable, Pair, Sample, SegmentationDataset
from segformer.data.faults import Finding, Look, class_of, find_faults, is_damaged, number, shown
from segformer.data.folder import DESCRIPTION, IMAGES, LISTED, MASKS, hash_splits, read_description
from segformer.data.images import list_images, open_image, to_rgb
from segformer.data.transforms import TrainTransform
from segformer.segmentation import colorize

Array = NDArray[Any]
Data = str | Path | DataConfig | DataSource
Progress = Callable[[int, int], None]

INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # those that images.read_mask takes
CHANNELS = {"1": "grey", "L": "grey", "LA": "grey + alpha", "La": "grey + alpha", "P": "RGB", "PA": "RGBA"}
CHANNELS |= {"RGBa": "RGBA", "RGBX": "RGB", "I": "16-bit", "F": "float"}
EDGE_FACTOR = 1.1  # right against wrong orientation was 1.14 or more on 167 trials with Dubai's and CamVid's images
COMMAND = "    "  # before a line of the report that is to be copied
RARE = 0.01  # of the labelled pixels
WEIGHTS = (0.1, 10.0)
NUM_COLUMNS, CELL, MARGIN, LINE = 3, 200, 8, 18  # of a sheet, in pixels but the first


@dataclass(frozen=True)
class Split:
    """What a split holds; the pixel counts are empty where nothing was decoded."""

    images: int
    sizes: dict[str, int]
    """Images of each height x width, most frequent first."""
    channels: dict[str, int]
    pixels: tuple[int, ...]
    """Of each class."""
    ignored: int
    """Pixels."""

    def shares(self) -> tuple[float, ...]:
        """Share of each class in the labelled pixels."""
        return tuple(count / max(sum(self.pixels), 1) for count in self.pixels)


@dataclass(frozen=True)
class Diagnosis:
    """What ``inspect`` found."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    findings: tuple[Finding, ...]
    """Errors first."""
    class_weights: tuple[float, ...] | None
    """1 / sqrt(share in the training split), of mean 1; None where it is not known."""
    rare: tuple[str, ...]
    """Classes with less than 1 % of the training split's labelled pixels."""
    notes: tuple[str, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that would stop the training, or make it learn from wrong labels."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ready(self) -> bool:
        """Whether there is no error; warnings are for the owner of the data to judge."""
        return not self.errors

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Options of ``segformer train``."""
        if self.class_weights is None:
            return ()
        return ("--train.class-weights " + " ".join(f"{weight:.2f}" for weight in self.class_weights),)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self) | {"ready": self.ready, "suggestions": list(self.suggestions)}


@dataclass(frozen=True)
class _Item:
    """A sample as found: files that are there, or one to be drawn."""

    split: str
    name: str
    image: Path | None = None
    mask: Path | None = None
    expected_mask: Path | None = None
    drawn: Sample | None = None


@dataclass(frozen=True)
class _Survey:
    """A data set before any file is opened; no classes and no table: to be counted in the masks."""

    name: str
    items: list[_Item]
    classes: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    table: LabelTable | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def inspect(data: Data, *, cheap: bool = False, progress: Progress | None = None) -> Diagnosis:
    """Look at every file of a data set: a folder, what ``--data`` takes, a config or an open source.

    ``cheap`` opens files without decoding them: pairing, headers, sizes and modes only.  Raises FileNotFoundError
    where the folder is missing; all else is a finding.
    """
    config = as_config(data)
    survey = survey_source(data) if isinstance(data, DataSource) else survey_config(config)
    looks = []
    for done, item in enumerate(sorted(survey.items, key=split_rank), start=1):
        looks.append(look_at(item, cheap))
        if progress is not None:
            progress(done, len(survey.items))
    counted = survey.table is None
    classes, table = (counted_classes(looks)) if counted else (survey.classes, survey.table)
    splits = {name: summary(looks, name, table, len(classes)) for name in dict.fromkeys(k.split for k in looks)}
    findings = find_faults(looks, table, classes, counted)
    if not any(finding.kind == "layout" for finding in survey.findings):
        findings += missing_splits(config, splits)
        if counted and table is not None and len(classes) < 2 and not any(f.kind == "binary_mask" for f in findings):
            problem = "expected at least two classes in the masks, found only 0 and 255, which is ignored"
            findings.append(
                Finding("layout", "error", (), problem, f"label the masks, or describe them in {DESCRIPTION}")
            )
    lists = [f"{name}.txt" for name in splits if (Path(survey.name) / f"{name}.txt").is_file()]
    if lists:
        also = f"; what is removed must leave {', '.join(lists)} too"
        findings = [replace(f, fix=f.fix + also) if f.command.startswith("rm ") else f for f in findings]
    findings = sorted([*survey.findings, *findings], key=lambda finding: finding.severity)
    weights, rare = balance(splits.get(config.train_split), classes)
    return Diagnosis(survey.name, tuple(classes), splits, tuple(findings), weights, rare, survey.notes)


def split_rank(item: _Item) -> int:
    """Train before val before test before others."""
    return LISTED.index(item.split) if item.split in LISTED else len(LISTED)


def as_config(data: Data) -> DataConfig:
    """Return the config that means the data; of an open source the names of its splits are all that counts."""
    if isinstance(data, DataConfig):
        return data
    return DataConfig() if isinstance(data, DataSource) else with_data(DataConfig(), str(data))


def survey_config(config: DataConfig) -> _Survey:
    """List the samples of the data set that a config names."""
    return survey_folder(config.root) if config.dataset == "folder" else survey_source(open_data(config))


def survey_source(source: DataSource) -> _Survey:
    """List the samples of an open source."""
    items = []
    for split, samples in source.splits.items():
        for sample in samples:
            if isinstance(sample, Pair):
                items.append(_Item(split, sample.name, sample.image, sample.mask if sample.mask.is_file() else None))
            else:
                items.append(_Item(split, sample.name, drawn=sample))
    return _Survey(source.name, items, source.classes, source.palette, source.table, notes=source.notes)


def survey_folder(root: str) -> _Survey:
    """List the files of the generic layout; what is out of place becomes a finding."""
    folder = Path(root)
    if not root or not folder.is_dir():
        raise FileNotFoundError(f"no data folder at '{root}'; expected one with {IMAGES}/ and {MASKS}/")
    missing = [part for part in (IMAGES, MASKS) if not (folder / part).is_dir()]
    if missing:
        problem = f"expected the folders {IMAGES}/ and {MASKS}/, found no {' and no '.join(f'{m}/' for m in missing)}"
        fix = f"put the images into {IMAGES}/train and {IMAGES}/val, the masks into {MASKS}/train and {MASKS}/val"
        return _Survey(root, [], findings=(Finding("layout", "error", (root,), problem, fix),))
    items, findings, notes = find_items(folder)
    if not any(item.image for item in items):
        problem = f"no images found in {folder / IMAGES}"
        findings.append(
            Finding("layout", "error", (str(folder / IMAGES),), problem, "add images, with masks of the same names")
        )
    path = folder / DESCRIPTION
    if not path.is_file():
        notes.append(f"no {DESCRIPTION} found: the classes are counted in the masks")
        return _Survey(root, items, findings=tuple(findings), notes=tuple(notes))
    try:
        classes, palette, table = read_description(path)
    except ValueError as error:
        problem = str(error).removeprefix(f"{path}: ")
        findings.append(Finding("layout", "error", (str(path),), problem, f"correct {DESCRIPTION}"))
        return _Survey(root, items, findings=tuple(findings), notes=tuple(notes))
    return _Survey(root, items, classes, palette, table, tuple(findings), tuple(notes))


def find_items(folder: Path) -> tuple[list[_Item], list[Finding], list[str]]:
    """Pair the files of each split: folders, else lists, else a hash of the names (as folder.find_splits does)."""
    images, masks = folder / IMAGES, folder / MASKS
    splits = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    lists = [name for name in LISTED if (folder / f"{name}.txt").is_file()]
    findings: list[Finding] = []
    items: list[_Item] = []
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


def pair_files(split: str, images: Path, masks: Path, listing: Path | None) -> tuple[list[_Item], list[Finding]]:
    """Put images and masks of the same name together, and keep those that have no partner."""
    found, clashes = by_name(images)
    drawn, _ = by_name(masks)
    findings = []
    if clashes:
        problem = f"{number(clashes, 'image')} with the name of another but for the ending: both would share a mask"
        findings.append(Finding("layout", "error", tuple(clashes), problem, "rename one of each, and its mask"))
    names = list(found)
    if listing is not None and listing.is_file():
        names = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
        unknown = [name for name in names if name not in found]
        if unknown:
            problem = (
                f"{listing.name} names {number(unknown, 'image')} that {images} does not have: {', '.join(unknown[:3])}"
            )
            findings.append(Finding("layout", "error", (str(listing),), problem, "correct the list, or add the images"))
    items = []
    for name in names:
        expected, mask = masks / f"{name}.png", drawn.get(name)
        elsewhere = expected if mask is not None and mask != expected else None
        if name in found:
            items.append(_Item(split, name, found[name], mask, elsewhere))
    items += [_Item(split, name, None, path) for name, path in drawn.items() if name not in found]
    return items, findings


def by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Images below a folder by their path without the ending, .png first, and those whose name is taken."""
    found: dict[str, Path] = {}
    clashes = []
    for path in sorted(list_images(folder) if folder.is_dir() else [], key=lambda path: (path.suffix != ".png", path)):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            clashes.append(str(path))
        found.setdefault(name, path)
    return dict(sorted(found.items())), clashes


def look_at(item: _Item, cheap: bool) -> Look:
    """Open the files of a sample, or draw it."""
    if item.drawn is not None:
        if cheap:
            return Look(split=item.split, image=item.name, mask=item.name, drawn=True)
        pixels, mask = item.drawn.read()
        drawn = image_facts(pixels) | label_facts(mask)
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


def look_at_image(item: _Item, cheap: bool) -> dict[str, Any]:
    """Fields of a Look that an image file gives."""
    assert item.image is not None
    try:
        image, turn = open_header(item.image) if cheap else opened(item.image)
    except (OSError, ValueError) as error:
        return {"image_error": reason_of(error, item.image)}
    stored = (image.height, image.width)
    facts: dict[str, Any] = {"stored_size": stored, "size": stored[::-1] if turn >= 5 else stored}
    facts["channels"] = channels_of(image)
    if not cheap:
        pixels = to_rgb(image)
        facts |= image_facts(pixels)
        if turn > 1 and item.mask is not None:
            facts["fits_unturned"] = fits_unturned(image, pixels, item.mask)
    return facts


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
            raise ValueError(f"{path}: {error}") from error


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


def counted_classes(looks: Sequence[Look]) -> tuple[tuple[str, ...], LabelTable | None]:
    """Classes 0 to the highest id in the masks, as folder.count_classes has it; none where no mask was decoded."""
    seen = [look.ids for look in looks if look.ids is not None and not is_damaged(look, None, counted=True)]
    if not seen:
        return (), None
    ids = np.concatenate(seen)
    highest = int(ids[(ids >= 0) & (ids < MAX_CLASSES)].max(initial=0))
    return tuple(f"class_{k}" for k in range(highest + 1)), LabelTable.identity(highest + 1)


def summary(looks: Sequence[Look], split: str, table: LabelTable | None, num_classes: int) -> Split:
    """Count what a split holds."""
    own = [look for look in looks if look.split == split and look.image]
    sizes = Counter(shown(look.size) for look in own if look.size).most_common()
    kinds = Counter(look.channels for look in own if look.channels).most_common()
    if table is None or not any(look.ids is not None for look in own):
        return Split(len(own), dict(sizes), dict(kinds), (), 0)
    pixels = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
    for look in own:
        if look.ids is not None and look.counts is not None:
            classes = class_of(table, look.ids)
            np.add.at(pixels, classes[classes >= 0], look.counts[classes >= 0])
    return Split(len(own), dict(sizes), dict(kinds), tuple(pixels[:num_classes].tolist()), int(pixels[IGNORE_INDEX]))


def missing_splits(config: DataConfig, splits: dict[str, Split]) -> list[Finding]:
    """Splits that a training asks for and that are not there, or empty."""
    wanted = {"train": config.train_split, "val": config.val_split}
    return [
        Finding(
            "layout",
            "error",
            (),
            f"no images in the split '{name}'; found {', '.join(splits) or 'none'}",
            f"add {IMAGES}/{name} and {MASKS}/{name}, or name another: --data.{option}-split",
        )
        for option, name in wanted.items()
        if name not in splits or not splits[name].images
    ]


def balance(split: Split | None, classes: Sequence[str]) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Weights 1 / sqrt(share) with mean 1 (a class that never occurs has 1), and the names of rare classes."""
    if split is None or not sum(split.pixels) or len(split.pixels) < 2:
        return None, ()
    shares = np.array(split.shares())
    occurs = shares > 0
    weights = np.ones(len(shares))
    raw = 1 / np.sqrt(shares[occurs])
    weights[occurs] = (raw / raw.mean()).clip(*WEIGHTS).round(2)
    rare = tuple(name for name, share in zip(classes, shares, strict=True) if 0 < share < RARE)
    return tuple(weights.tolist()), rare


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print what is in the data, what is wrong and how to fix it; the last line is ``ready`` where nothing stops it."""
    console.print(split_table(diagnosis))
    if any(split.pixels for split in diagnosis.splits.values()):
        console.print(class_table(diagnosis))
    for line in report_lines(diagnosis):
        text = line.lstrip()
        if not text or line.startswith(COMMAND):  # on one line, to be copied
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(Padding(Text(text), (0, 0, 0, len(line) - len(text)), expand=False))


def split_table(diagnosis: Diagnosis) -> Table:
    """Rows of splits."""
    table = Table(title=diagnosis.name, title_justify="left")
    for heading in ("split", "images", "size (height x width)", "channels", "ignored"):
        table.add_column(heading, justify="right" if heading in ("images", "ignored") else "left")
    for name, split in diagnosis.splits.items():
        sizes = list(split.sizes.items())
        listed = ", ".join(size if len(sizes) == 1 else f"{size} ({times})" for size, times in sizes[:3])
        rest = f", {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
        pixels = sum(split.pixels) + split.ignored
        ignored = f"{100 * split.ignored / pixels:.1f} %" if pixels else "-"
        table.add_row(name, str(split.images), listed + rest, ", ".join(split.channels), ignored)
    return table


def class_table(diagnosis: Diagnosis) -> Table:
    """Rows of classes: share of the labelled pixels of each split, and the suggested weight."""
    splits = {name: split.shares() for name, split in diagnosis.splits.items() if split.pixels}
    table = Table(title="share of the labelled pixels, %", title_justify="left")
    table.add_column("class")
    for name in (*splits, "weight"):
        table.add_column(name, justify="right")
    table.add_column("")
    for k, name in enumerate(diagnosis.classes):
        weight = "-" if diagnosis.class_weights is None else f"{diagnosis.class_weights[k]:.2f}"
        shares = [f"{100 * values[k]:.2f}" if values[k] else "-" for values in splits.values()]
        table.add_row(name, *shares, weight, "rare" if name in diagnosis.rare else "")
    return table


def report_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Notes, suggestions, then every finding with its files and its fix, and the verdict."""
    yield from (f"note: {note}" for note in diagnosis.notes)
    if diagnosis.suggestions:
        yield "suggested for segformer train (classes weighted by 1 / sqrt(share)):"
        yield from (f"{COMMAND}{option}" for option in diagnosis.suggestions)
    for finding in diagnosis.findings:
        yield ""
        yield f"{finding.severity}: {relative(finding.problem, diagnosis.name)}"
        if finding.files:
            more = f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else ""
            yield f"  in: {relative(', '.join(finding.files[:3]), diagnosis.name)}{more}"
        yield f"  fix: {finding.fix}"
        if finding.command:
            yield f"{COMMAND}{finding.command}"
    yield ""
    warned = len(diagnosis.findings) - len(diagnosis.errors)
    if diagnosis.ready:
        yield "ready"
    else:
        also = f" and look at {number(range(warned), 'warning')}" if warned else ""
        yield f"not ready: fix {number(diagnosis.errors, 'error')}{also}, then inspect again"


def relative(text: str, root: str) -> str:
    """Leave the data folder's name out of paths."""
    return text.replace(f"{root.rstrip('/')}/", "")


def contact_sheet(data: Data, count: int = 12) -> Array:
    """Images beside their masks in colours, evenly spaced over the data set.  -> (H, W, 3) uint8

    What can not be read is left out; raises a ValueError where nothing can.
    """
    survey = survey_source(data) if isinstance(data, DataSource) else survey_config(as_config(data))
    pairs = [item for item in sorted(survey.items, key=split_rank) if item.drawn or (item.image and item.mask)]
    chosen = [pairs[k] for k in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int))] if pairs else []
    samples = []
    for item in chosen:
        sample = item.drawn or Pair(item.name, *(path for path in (item.image, item.mask) if path))
        with suppress(ValueError, OSError):
            samples.append((f"{item.split}/{item.name}", *sample.read()))
    if not samples:
        raise ValueError(f"{survey.name}: expected images with masks to show, none could be read")
    classes, palette, table = survey.classes, survey.palette, survey.table
    if table is None:
        classes, table = counted_classes([Look(split="", **label_facts(mask)) for _, _, mask in samples])
        palette = default_palette(len(classes))
    assert table is not None
    tiles = [
        (name, image, np.where((k := class_of(table, mask)) < 0, IGNORE_INDEX, k)) for name, image, mask in samples
    ]
    return draw_sheet(tiles, classes, palette)


def augmented_sheet(recipe: Recipe, count: int = 12) -> Array:
    """Training samples as the model gets them, in colours of before the normalisation.  -> (H, W, 3) uint8"""
    source = open_data(recipe.data)
    samples = source.samples(recipe.data.train_split)
    dataset = SegmentationDataset(
        samples, source.table, TrainTransform(recipe.data, recipe.preprocessing), recipe.train.seed
    )
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (recipe.preprocessing.mean, recipe.preprocessing.std))
    tiles = []
    for epoch in range(count):
        index = epoch * len(samples) // count
        image, mask = (tensor.numpy() for tensor in dataset[epoch, index])
        pixels = (image * std + mean).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        tiles.append((samples[index].name, pixels, mask))
    return draw_sheet(tiles, source.classes, source.palette)


def draw_sheet(tiles: Sequence[tuple[str, Array, Array]], classes: Sequence[str], palette: Sequence[Color]) -> Array:
    """Set image and coloured mask side by side, three pairs a row, the legend below."""
    height, width = tiles[0][1].shape[:2]
    cell = (CELL, min(round(CELL * height / width), 2 * CELL))
    pitch = (2 * CELL + 2 * MARGIN, cell[1] + LINE + MARGIN)
    num_rows = -(-len(tiles) // NUM_COLUMNS)
    sheet_width, font = NUM_COLUMNS * pitch[0] + MARGIN, ImageFont.load_default(12)
    legend = legend_places((*classes, "ignored"), font, sheet_width)
    top = num_rows * pitch[1] + MARGIN
    sheet = Image.new("RGB", (sheet_width, top + legend[-1][1] + LINE + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (name, image, mask) in enumerate(tiles):
        x, y = MARGIN + k % NUM_COLUMNS * pitch[0], MARGIN + k // NUM_COLUMNS * pitch[1]
        draw.text((x, y), name, "black", font)
        for offset, picture in ((0, image), (CELL, colorize(mask, palette))):
            method = Image.Resampling.NEAREST if offset else Image.Resampling.BILINEAR
            scale = min(cell[0] / picture.shape[1], cell[1] / picture.shape[0])
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            sheet.paste(Image.fromarray(picture).resize(size, method), (x + offset, y + LINE))
    for (x, y), name, color in zip(legend, (*classes, "ignored"), (*palette, (0, 0, 0)), strict=True):
        draw.rectangle((x, top + y + 2, x + 11, top + y + 13), tuple(color), "black")
        draw.text((x + 16, top + y), name, "black", font)
    return np.asarray(sheet)


def legend_places(names: Sequence[str], font: Any, width: int) -> list[tuple[int, int]]:
    """Where each name goes, in lines of at most ``width``."""
    places, x, y = [], MARGIN, 0
    for name in names:
        length = 16 + int(font.getlength(name)) + 2 * MARGIN
        if x + length > width and x > MARGIN:
            x, y = MARGIN, y + LINE
        places.append((x, y))
        x += length
    return places
