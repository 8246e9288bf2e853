"""Images a second and core of decoding and augmenting: this package, a plain Pillow pipeline, albumentations.

    python -m benchmarks.loader [--data NAME=ROOT|FOLDER] [--recipe NAME] [--repeats N] [--out FILE.json]

All three decode an image and its mask, map the labels, resize by a random factor of the recipe's base, crop (again, up
to 10 times, while one class fills the crop), flip, distort the colours (each part with probability 1/2), normalise and
pad: a float32 (3, H, W) image and a uint8 (H, W) mask.  Where they differ:

- Pillow's bilinear filter widens where it shrinks (antialiasing) and so reads every pixel; the other two read the four
  neighbours.  Its HSV has 8 bits, hue included.  It does one trip through HSV for saturation and hue, as we do.
- albumentations scales saturation by mixing with the grey image and shifts hue in OpenCV's HSV, of 180 hues.  Its
  tensors are transposed views of (H, W, 3) arrays, as ToTensorV2 makes them.
- albumentations reads with OpenCV, except for palette masks, which OpenCV turns into colours: those with Pillow.
- We also check every label against the table, and turn damaged files into errors that name them.

The same sample gets the same resize factor in every pipeline, and Pillow's draws are all ours.  `reduced` is
data.reduced_decode, `cached` data.cache (filled before the clock starts); the others have nothing of the kind.

Times are of the processor, not of the wall, with one thread: what else runs on the machine costs only caches and
memory, and waiting for a disk costs nothing.  The pipelines take turns within every round, in rotated order; each round
has draws of its own, and rates are medians over the rounds.  Batching and worker processes are left out.  Needs
albumentations and OpenCV; stages are told apart by the names of our functions (Stages.watching).
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest.mock import patch

import albumentations as A  # the field's name for it
import cv2
import numpy as np
import PIL
import torch
import torchvision
import tyro
from albumentations.augmentations.crops.transforms import BaseCrop
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.machine import describe_machine
from segformer.config import IGNORE_INDEX, DataConfig, Recipe, Size
from segformer.data import dataset, transforms
from segformer.data.dataset import DataSource, LabelTable, Pair, SegmentationDataset, generator_of
from segformer.data.sources.catalog import open_data, with_data
from segformer.data.sources.street_scene import draw_scene
from segformer.data.sources.toytown import CLASSES, PALETTE
from segformer.data.transforms import (
    BRIGHTNESS,
    CONTRAST,
    CROP_TRIES,
    HUE,
    SATURATION,
    fitted_size,
    random_window,
    uniform,
)
from segformer.files import write_json
from segformer.recipes import FOLDER_B0, find_recipe
from segformer.training.preparation import training_set

Array = NDArray[Any]
Loader = Dataset[tuple[Tensor, Tensor]]  # an item is asked for by (epoch, index)
OURS, PILLOW, ALBUMENTATIONS = "ours", "PIL", "albumentations"
LIBRARIES = (torch, torchvision, np, PIL, A, cv2)


@dataclass(frozen=True)
class Row:
    """A setting: drawn images of a size and kind, and how training samples are cut from them."""

    name: str
    size: Size
    drawn: Size
    """Scenes are drawn at this size, enlarged to ``size`` and given noise."""
    noise: float
    """Standard deviation in grey levels, so that files are about as large as those of cameras."""
    suffix: str
    num: int
    """Images, each loaded once a round."""
    data: DataConfig
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further columns: fields of the data config that differ."""


FASTER: dict[str, dict[str, Any]] = {
    "reduced": {"reduced_decode": True},
    "cached": {"cache": "cache"},
    "reduced + cached": {"reduced_decode": True, "cache": "cache"},
}
CITYSCAPES = DataConfig(resize=(2048, 1024), crop=(1024, 1024))
CITYSCAPES_FAST = DataConfig(resize=(1024, 512), crop=(512, 1024))
ROWS = (
    Row("ADE20K", (512, 683), (512, 683), 1.0, ".jpg", 24, DataConfig()),
    Row("Cityscapes", (1024, 2048), (256, 512), 0.5, ".png", 8, CITYSCAPES),
    Row("Cityscapes fast", (1024, 2048), (256, 512), 0.5, ".png", 8, CITYSCAPES_FAST),
    Row("folder_b0, phone", (3000, 4000), (750, 1000), 5.0, ".jpg", 6, FOLDER_B0.data, FASTER),
)
JPEG_QUALITY = 92  # PNG has none
SAMPLES_OF_DATA = 24


class PillowLoader(Loader):
    """What one writes with Pillow and NumPy, drawing the numbers that we draw."""

    def __init__(self, samples: Sequence[Pair], table: LabelTable, recipe: Recipe) -> None:
        self.samples, self.data, self.seed = samples, recipe.data, recipe.train.seed
        self.table = eight_bit(table)
        self.mean = np.array(recipe.preprocessing.mean, np.float32)
        self.std = np.array(recipe.preprocessing.std, np.float32)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        generator = generator_of(self.seed, epoch, index)
        image, mask = self.read(self.samples[index])
        image, mask = self.resize(image, mask, generator)
        image, labels = self.crop(image, np.asarray(mask), generator)
        if uniform(generator) < self.data.flip:
            image, labels = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), labels[:, ::-1]
        if self.data.photometric:
            image = distort(image, generator)
        normalized = (np.asarray(image, np.float32) - self.mean) / self.std
        bottom, right = (side - length for side, length in zip(self.data.crop, labels.shape, strict=True))
        if bottom or right:
            normalized = np.pad(normalized, ((0, bottom), (0, right), (0, 0)))
            labels = np.pad(labels, ((0, bottom), (0, right)), constant_values=IGNORE_INDEX)
        planes = np.ascontiguousarray(normalized.transpose(2, 0, 1))
        return torch.from_numpy(planes), torch.from_numpy(labels.copy())

    def read(self, sample: Pair) -> tuple[Image.Image, Image.Image]:
        image, mask = Image.open(sample.image), Image.open(sample.mask)
        ImageOps.exif_transpose(image, in_place=True)
        if mask.mode in ("L", "P"):
            return image.convert("RGB"), mask.point(self.table.tolist())
        return image.convert("RGB"), Image.fromarray(self.table[np.asarray(mask)])

    def resize(
        self, image: Image.Image, mask: Image.Image, generator: torch.Generator
    ) -> tuple[Image.Image, Image.Image]:
        factor = uniform(generator, *self.data.ratio)
        sides = (self.data.resize[0] * factor, self.data.resize[1] * factor)
        size = fitted_size((mask.height, mask.width), *sides)[::-1]
        return image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)

    def crop(self, image: Image.Image, labels: Array, generator: torch.Generator) -> tuple[Image.Image, Array]:
        rows, columns = slice(None), slice(None)
        for _ in range(CROP_TRIES):
            rows, columns = random_window((image.height, image.width), self.data.crop, generator)
            if largest_share(labels[rows, columns]) <= self.data.max_class_share:
                break
        right, bottom = min(columns.stop, image.width), min(rows.stop, image.height)
        return image.crop((columns.start, rows.start, right, bottom)), labels[rows, columns]


def distort(image: Image.Image, generator: torch.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and hue: what photometric_distortion does, in Pillow's operations."""
    if uniform(generator) < 0.5:
        shift = uniform(generator, -BRIGHTNESS, BRIGHTNESS)
        image = image.point([round(min(max(level + shift, 0), 255)) for level in range(256)] * 3)
    contrast_first = uniform(generator) < 0.5
    contrast = uniform(generator, *CONTRAST) if uniform(generator) < 0.5 else 1.0
    saturation = uniform(generator, *SATURATION) if uniform(generator) < 0.5 else 1.0
    hue = uniform(generator, -HUE, HUE) if uniform(generator) < 0.5 else 0.0
    if contrast_first and contrast != 1.0:
        image = ImageEnhance.Brightness(image).enhance(contrast)  # the one that multiplies all levels
    if saturation != 1.0 or hue != 0.0:
        hues = [round(level + 256 * hue) % 256 for level in range(256)]
        saturations = [min(round(level * saturation), 255) for level in range(256)]
        image = image.convert("HSV").point([*hues, *saturations, *range(256)]).convert("RGB")
    if not contrast_first and contrast != 1.0:
        image = ImageEnhance.Brightness(image).enhance(contrast)
    return image


class AlbumentationsLoader(Loader):
    """The same augmentation of albumentations' transforms."""

    def __init__(self, samples: Sequence[Pair], table: LabelTable, recipe: Recipe) -> None:
        self.samples, self.data, self.seed = samples, recipe.data, recipe.train.seed
        self.table = eight_bit(table)
        self.palettes = {sample.mask for sample in samples if Image.open(sample.mask).mode == "P"}
        self.resize = A.Resize(1, 1)  # the size is set for each sample
        photometric = (
            A.RandomBrightnessContrast(brightness_limit=BRIGHTNESS / 255, contrast_limit=0, p=0.5),
            A.RandomOrder([contrast(), A.Sequential([saturation(), hue()], p=1)], n=2),
        )
        mean, std = (tuple(v / 255 for v in of) for of in (recipe.preprocessing.mean, recipe.preprocessing.std))
        pad = {"position": "top_left", "fill": 0, "fill_mask": IGNORE_INDEX}
        self.transform = A.Compose(
            [
                self.resize,
                ClassShareCrop(self.data.crop, self.data.max_class_share),
                A.HorizontalFlip(p=self.data.flip),
                *(photometric if self.data.photometric else ()),
                A.Normalize(mean, std),
                A.PadIfNeeded(*self.data.crop, border_mode=cv2.BORDER_CONSTANT, **pad),
                A.ToTensorV2(),
            ],
            seed=0,
        )

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        sample = self.samples[index]
        image: Any = cv2.imread(str(sample.image), cv2.IMREAD_COLOR_RGB)
        if sample.mask in self.palettes:
            mask: Any = np.asarray(Image.open(sample.mask))
        else:
            mask = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
        mask = cv2.LUT(mask, self.table[:256]) if mask.dtype == np.uint8 else self.table[mask]
        factor = uniform(generator_of(self.seed, epoch, index), *self.data.ratio)
        sides = (self.data.resize[0] * factor, self.data.resize[1] * factor)
        self.resize.height, self.resize.width = fitted_size(mask.shape, *sides)
        transformed = self.transform(image=image, mask=mask)
        return transformed["image"], transformed["mask"]


def contrast() -> A.RandomBrightnessContrast:
    return A.RandomBrightnessContrast(brightness_limit=0, contrast_limit=(CONTRAST[0] - 1, CONTRAST[1] - 1), p=0.5)


def saturation() -> A.ColorJitter:
    return A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=SATURATION, hue=(0, 0), p=0.5)


def hue() -> A.HueSaturationValue:
    return A.HueSaturationValue(hue_shift_limit=180 * HUE, sat_shift_limit=0, val_shift_limit=0, p=0.5)


class ClassShareCrop(BaseCrop):
    """A random crop, tried again while one class fills more than its share; albumentations has none such."""

    def __init__(self, crop: Size, max_class_share: float) -> None:
        super().__init__(p=1.0)
        self.crop, self.max_class_share = crop, max_class_share

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        (height, width), (rows, columns) = params["shape"][:2], self.crop
        top = left = 0
        for _ in range(CROP_TRIES):
            top = self.py_random.randint(0, max(height - rows, 0))
            left = self.py_random.randint(0, max(width - columns, 0))
            if largest_share(data["mask"][top : top + rows, left : left + columns]) <= self.max_class_share:
                break
        return {"crop_coords": (left, top, min(left + columns, width), min(top + rows, height))}


def largest_share(labels: Array) -> float:
    """Share of the most frequent class among the labelled pixels; 1 where fewer than two classes occur."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return 1.0 if np.count_nonzero(counts) < 2 else float(counts.max() / counts.sum())


def eight_bit(table: LabelTable) -> Array:
    """Return a table of at least 256 entries, uint8, without a mark for what may not occur."""
    values = np.full(max(256, len(table.values)), IGNORE_INDEX, np.uint8)
    values[: len(table.values)] = table.values.clip(0)
    return values


def draw_source(row: Row, folder: Path) -> DataSource:
    """Write a row's images and masks."""
    pairs = []
    for seed in range(row.num):
        pixels, labels = draw_scene(seed, row.drawn)
        size = (row.size[1], row.size[0])
        image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), np.float32)
        image = image + row.noise * np.random.default_rng(seed).standard_normal(image.shape, np.float32)
        pair = Pair(f"{seed}", folder / f"{seed}{row.suffix}", folder / f"{seed}_mask.png")
        Image.fromarray(image.clip(0, 255).round().astype(np.uint8)).save(pair.image, quality=JPEG_QUALITY)
        Image.fromarray(labels).resize(size, Image.Resampling.NEAREST).save(pair.mask)
        pairs.append(pair)
    splits = dict.fromkeys(("train", "val"), pairs)
    return DataSource("drawn", CLASSES, PALETTE, LabelTable.identity(len(CLASSES)), splits)


def open_given(spec: str, recipe: Recipe) -> tuple[Recipe, DataSource]:
    """Return a recipe for the user's data, and a few samples of them; raises a ValueError where they are no files."""
    if recipe.preprocessing.pixels != "rgb":
        raise ValueError(
            f"the other pipelines read RGB images only, {recipe.name} takes raw pixels; give another recipe"
        )
    data = replace(with_data(recipe.data, spec), rare_crop=0.0, reduced_decode=False, cache="")
    source = open_data(data)
    found = source.samples(data.train_split)
    if not all(isinstance(sample, Pair) for sample in found):
        raise ValueError(f"{spec}: expected image files with index masks, which the other pipelines can read, too")
    chosen = found[:: max(1, len(found) // SAMPLES_OF_DATA)][:SAMPLES_OF_DATA]
    splits = {data.train_split: chosen, data.val_split: chosen}
    return replace(recipe, data=data), replace(source, splits=splits)


def build_loaders(
    recipe: Recipe, source: DataSource, variants: dict[str, dict[str, Any]], folder: Path
) -> dict[str, Loader]:
    """Return every pipeline by the name of its column."""
    loaders: dict[str, Loader] = {}
    for name, changes in {OURS: dict[str, Any](), **variants}.items():
        placed = changes | ({"cache": str(folder / changes["cache"])} if "cache" in changes else {})
        loaders[name] = training_set(replace(recipe, data=replace(recipe.data, **placed)), source)
    pairs = cast("Sequence[Pair]", source.samples(recipe.data.train_split))
    return loaders | {
        PILLOW: PillowLoader(pairs, source.table, recipe),
        ALBUMENTATIONS: AlbumentationsLoader(pairs, source.table, recipe),
    }


def measure(loaders: dict[str, Loader], num: int, crop: Size, repeats: int) -> dict[str, list[float]]:
    """Images a second of every pipeline and round; a round before them warms up and is checked, not counted."""
    names, rates = list(loaders), {name: list[float]() for name in loaders}
    for loader in loaders.values():
        for index in range(num):
            image, mask = loader[0, index]
            assert (image.dtype, image.shape, mask.dtype, mask.shape) == (torch.float32, (3, *crop), torch.uint8, crop)
    for epoch in range(1, 1 + repeats):
        for name in names[epoch % len(names) :] + names[: epoch % len(names)]:
            started = time.process_time()
            for index in range(num):
                loaders[name][epoch, index]
            rates[name].append(num / (time.process_time() - started))
    return rates


class Stages:
    """Processor time between the calls and returns of the functions that an item is made by."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = 0.0

    def mark(self, stage: str | None) -> None:
        """Give the time since the last mark to a stage."""
        now = time.process_time()
        if stage:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now

    def watched(self, function: Callable[..., Any], before: str | None, during: str) -> Callable[..., Any]:
        """Return the function, giving the time before and during its calls to these stages."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.mark(before)
            result = function(*arguments, **options)
            self.mark(during)
            return result

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this package's functions meanwhile."""
        with ExitStack() as stack:
            for place, name, before, during in (
                (dataset, "read_image", None, "decode image"),
                (dataset, "read_mask", None, "decode mask"),
                (LabelTable, "apply", "to tensor", "label table"),
                (transforms, "random_resize", "to tensor", "resize"),
                (transforms, "random_crop", "resize", "crop"),
                (transforms, "photometric_distortion", "flip", "photometric"),
            ):
                stack.enter_context(patch.object(place, name, self.watched(getattr(place, name), before, during)))
            yield


STAGES = (
    "decode image", "decode mask", "label table", "to tensor", "resize", "crop", "flip", "photometric",
    "normalise + pad",
)  # fmt: skip


def stage_times(loaders: dict[str, Loader], num: int, repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds an image of each stage of our pipelines, medians over the rounds."""
    rounds: dict[str, list[dict[str, float]]] = {}
    for epoch in range(1, 1 + repeats):
        for name, loader in loaders.items():
            if isinstance(loader, SegmentationDataset):
                stages = Stages()
                with stages.watching():
                    for index in range(num):
                        stages.mark(None)
                        loader[epoch, index]
                        stages.mark("normalise + pad")
                rounds.setdefault(name, []).append(stages.seconds)
    return {
        name: {stage: 1000 / num * median(found.get(stage, 0.0) for found in times) for stage in STAGES}
        for name, times in rounds.items()
    }


def run_row(recipe: Recipe, source: DataSource, variants: dict[str, dict[str, Any]], repeats: int) -> dict[str, Any]:
    """Return the settings and figures of a row, as JSON."""
    pairs = cast("Sequence[Pair]", source.samples(recipe.data.train_split))
    data = recipe.data
    with TemporaryDirectory() as folder:
        loaders = build_loaders(recipe, source, variants, Path(folder))
        rates = measure(loaders, len(pairs), data.crop, repeats)
        stages = stage_times(loaders, len(pairs), repeats)
    middle = {name: median(found) for name, found in rates.items()}
    ours = [name for name in middle if name not in (PILLOW, ALBUMENTATIONS)]
    return {
        "images": len(pairs),
        "first_size": Image.open(pairs[0].image).size[::-1],
        "mean_kb": {part: mean_kb([getattr(pair, part) for pair in pairs]) for part in ("image", "mask")},
        "settings": {
            name: getattr(data, name) for name in ("resize", "ratio", "crop", "max_class_share", "photometric")
        },
        "images_per_second": middle,
        "ratios": {
            f"{name} / {other}": middle[name] / middle[other] for name in ours for other in (PILLOW, ALBUMENTATIONS)
        },
        "rounds": rates,
        "stages_ms": stages,
    }


def mean_kb(paths: Sequence[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / len(paths) / 1000


def print_rates(rows: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table(title="Images a second and core, and the ratio ours / other", title_justify="left")
    columns = (OURS, *FASTER, PILLOW, ALBUMENTATIONS)
    table.add_column("setting")
    for heading in ("first image", *columns, "ours / PIL", "ours / albumentations"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        (height, width), found = row["first_size"], row["images_per_second"]
        cells = [f"{found[column]:.1f}" if column in found else "-" for column in columns]
        ratios = [f"{row['ratios'][f'{OURS} / {other}']:.2f}" for other in (PILLOW, ALBUMENTATIONS)]
        table.add_row(name, f"{width} x {height}", *cells, *ratios)
    console.print(table)


def print_stages(rows: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table(title="Our stages, milliseconds an image", title_justify="left")
    table.add_column("setting")
    for heading in (*STAGES, "all"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        for variant, times in row["stages_ms"].items():
            title = name if variant == OURS else f"  {variant}"
            table.add_row(title, *(f"{times[stage]:.1f}" for stage in STAGES), f"{sum(times.values()):.1f}")
    console.print(table)


def main(data: str | None = None, recipe: str = FOLDER_B0.name, repeats: int = 5, out: Path | None = None) -> None:
    """Measure what loading costs, here and with other libraries.

    Args:
        data: Your data, as segformer train takes them; None: the settings of the paper on drawn images.
        recipe: The recipe whose settings your data get.
        repeats: Rounds that are measured.
        out: JSON file to write.
    """
    if repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {repeats}")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    console, rows = Console(width=None if sys.stdout.isatty() else 160), dict[str, dict[str, Any]]()
    if data is not None:
        given, source = open_given(data, find_recipe(recipe))
        rows[f"{Path(source.name).name}, {given.name}"] = run_row(given, source, FASTER, repeats)
    else:
        for row in ROWS:
            with TemporaryDirectory() as folder:
                source = draw_source(row, Path(folder))
                rows[row.name] = run_row(replace(FOLDER_B0, data=row.data), source, row.variants, repeats)
    print_rates(rows, console)
    print_stages(rows, console)
    if out is not None:
        versions = {library.__name__: library.__version__ for library in LIBRARIES}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"date": when, "machine": describe_machine(), "versions": versions, "repeats": repeats}
        write_json(out, {**about, "rows": rows})


if __name__ == "__main__":
    try:
        tyro.cli(main, prog="python -m benchmarks.loader")
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
