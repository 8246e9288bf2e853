"""Images per second and core of decoding and augmenting: this package, a plain Pillow pipeline, albumentations.

    python -m benchmarks.loader [--data NAME=ROOT|FOLDER] [--recipe NAME] [--repeats N] [--out FILE.json]

All three decode an image and its mask, map the labels, resize by a random factor of the recipe's base, crop (up to 10
times, while one class fills the crop), flip, distort the colors (each part with probability 1/2), normalize and pad.
The result is a float32 (3, H, W) image and a uint8 (H, W) mask.  The differences:

- Pillow's bilinear filter widens when it shrinks an image (antialiasing) and so reads every pixel; the other two read
  the four neighbors.  Its HSV has 8 bits, including the hue.  Like ours, it converts to HSV once for saturation and
  hue.
- albumentations scales the saturation by mixing with the gray image, and shifts the hue in OpenCV's HSV, which has 180
  hues.  Its tensors are transposed views of (H, W, 3) arrays, as ToTensorV2 makes them.
- albumentations reads files with OpenCV, except palette masks, which OpenCV would turn into colors: Pillow reads those.
- Ours also checks every label against the table, and its errors name a damaged file.

A sample gets the same resize factor in every pipeline, and Pillow's pipeline draws all the random numbers that ours
draws.  The column `reduced` uses data.reduced_decode, `cached` uses data.cache (filled before the clock starts); the
other pipelines have no counterpart.

Times are processor times of one thread, not wall-clock times: other work on the machine costs only caches and memory,
and waiting for a disk costs nothing.  The pipelines take turns within every round, in rotated order; each round draws
new random numbers, and rates are medians over the rounds.  Batching and worker processes are left out.  The benchmark
needs albumentations and OpenCV; it tells our stages apart by the names of our functions (StageClock.watching).
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

import albumentations as A
import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine, run_command_line
from benchmarks.other_loaders import AlbumentationsLoader, Loader, PillowLoader
from segformer.config import DataConfig, Recipe, Size
from segformer.data import dataset, transforms
from segformer.data.dataset import DataSource, Pair
from segformer.data.label_table import LabelTable
from segformer.data.loading import SegmentationDataset
from segformer.data.sources.catalog import open_data, with_data
from segformer.data.sources.street_scene import draw_scene
from segformer.data.sources.toytown import CLASSES, PALETTE
from segformer.errors import UserError
from segformer.files import write_json
from segformer.recipes import FOLDER_B0, find_recipe
from segformer.training.preparation import training_set

OURS, PILLOW, ALBUMENTATIONS = "ours", "PIL", "albumentations"
LIBRARIES = (torch, torchvision, np, PIL, A, cv2)


@dataclass(frozen=True)
class LoaderSetting:
    """Drawn images of a size and kind, and how training samples are cut from them."""

    name: str
    size: Size
    drawn: Size
    """Size at which scenes are drawn before they are enlarged to ``size``."""
    noise: float
    """Standard deviation of added noise in gray levels; it makes the files about as large as those of cameras."""
    suffix: str
    num_images: int
    """Number of images; each is loaded once per round."""
    data: DataConfig
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of the data config that differ, for each further column."""


FASTER: dict[str, dict[str, Any]] = {
    "reduced": {"reduced_decode": True},
    "cached": {"cache": "cache"},
    "reduced + cached": {"reduced_decode": True, "cache": "cache"},
}
CITYSCAPES = DataConfig(resize=(2048, 1024), crop=(1024, 1024))
CITYSCAPES_FAST = DataConfig(resize=(1024, 512), crop=(512, 1024))
SETTINGS = (
    LoaderSetting("ADE20K", (512, 683), (512, 683), 1.0, ".jpg", 24, DataConfig()),
    LoaderSetting("Cityscapes", (1024, 2048), (256, 512), 0.5, ".png", 8, CITYSCAPES),
    LoaderSetting("Cityscapes fast", (1024, 2048), (256, 512), 0.5, ".png", 8, CITYSCAPES_FAST),
    LoaderSetting("folder_b0, phone", (3000, 4000), (750, 1000), 5.0, ".jpg", 6, FOLDER_B0.data, FASTER),
)
JPEG_QUALITY = 92
MAX_SAMPLES = 24  # that are taken from the user's data


def draw_source(setting: LoaderSetting, folder: Path) -> DataSource:
    """Write the images and masks of a setting."""
    pairs = []
    for seed in range(setting.num_images):
        pixels, labels = draw_scene(seed, setting.drawn)
        size = (setting.size[1], setting.size[0])
        image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), np.float32)
        image = image + setting.noise * np.random.default_rng(seed).standard_normal(image.shape, np.float32)
        pair = Pair(f"{seed}", folder / f"{seed}{setting.suffix}", folder / f"{seed}_mask.png")
        Image.fromarray(image.clip(0, 255).round().astype(np.uint8)).save(pair.image, quality=JPEG_QUALITY)
        Image.fromarray(labels).resize(size, Image.Resampling.NEAREST).save(pair.mask)
        pairs.append(pair)
    splits = dict.fromkeys(("train", "val"), pairs)
    return DataSource("drawn", CLASSES, PALETTE, LabelTable.identity(len(CLASSES)), splits)


def open_user_data(spec: str, recipe: Recipe) -> tuple[Recipe, DataSource]:
    """Return a recipe for the user's data, and a few of its samples, which must be files with index masks."""
    if recipe.preprocessing.pixels != "rgb":
        raise UserError(
            f"the other pipelines read RGB images only, but {recipe.name} takes raw pixels; give another recipe"
        )
    data = replace(with_data(recipe.data, spec), rare_crop=0.0, reduced_decode=False, cache="")
    source = open_data(data)
    found = source.samples(data.train_split)
    if not all(isinstance(sample, Pair) for sample in found):
        raise UserError(f"{spec}: expected image files with index masks, which the other pipelines can read as well")
    chosen = found[:: max(1, len(found) // MAX_SAMPLES)][:MAX_SAMPLES]
    splits = {data.train_split: chosen, data.val_split: chosen}
    return replace(recipe, data=data), replace(source, splits=splits)


def build_loaders(
    recipe: Recipe, source: DataSource, variants: dict[str, dict[str, Any]], folder: Path
) -> dict[str, Loader]:
    """Return the pipelines by the names of their columns."""
    loaders: dict[str, Loader] = {}
    for name, changes in {OURS: dict[str, Any](), **variants}.items():
        if "cache" in changes:
            changes = changes | {"cache": str(folder / changes["cache"])}
        loaders[name] = training_set(replace(recipe, data=replace(recipe.data, **changes)), source)
    pairs = cast("Sequence[Pair]", source.samples(recipe.data.train_split))
    return loaders | {
        PILLOW: PillowLoader(pairs, source.table, recipe),
        ALBUMENTATIONS: AlbumentationsLoader(pairs, source.table, recipe),
    }


def measure_rates(loaders: dict[str, Loader], num_images: int, crop: Size, repeats: int) -> dict[str, list[float]]:
    """Return the images per second of every pipeline in every round, after a round that only warms up and checks."""
    names = list(loaders)
    rates = {name: list[float]() for name in loaders}
    for loader in loaders.values():
        for index in range(num_images):
            image, mask = loader[0, index]
            assert (image.dtype, image.shape, mask.dtype, mask.shape) == (torch.float32, (3, *crop), torch.uint8, crop)
    for epoch in range(1, 1 + repeats):
        for name in names[epoch % len(names) :] + names[: epoch % len(names)]:
            started = time.process_time()
            for index in range(num_images):
                loaders[name][epoch, index]
            rates[name].append(num_images / (time.process_time() - started))
    return rates


class StageClock:
    """Processor time of the stages of an item, measured at the calls and returns of our functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = 0.0

    def mark(self, stage: str | None) -> None:
        """Add the time since the last mark to a stage; None: to no stage."""
        now = time.process_time()
        if stage:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now

    def watched(self, function: Callable[..., Any], before: str | None, during: str) -> Callable[..., Any]:
        """Wrap a function: the time before a call is added to the stage ``before``, that of the call to ``during``."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.mark(before)
            result = function(*arguments, **options)
            self.mark(during)
            return result

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Replace this package's functions by watched ones within the context."""
        with ExitStack() as stack:
            for owner, name, before, during in (
                (dataset, "read_image", None, "decode image"),
                (dataset, "read_mask", None, "decode mask"),
                (LabelTable, "apply", "to tensor", "label table"),
                (transforms, "random_resize", "to tensor", "resize"),
                (transforms, "random_crop", "resize", "crop"),
                (transforms, "photometric_distortion", "flip", "photometric"),
            ):
                stack.enter_context(patch.object(owner, name, self.watched(getattr(owner, name), before, during)))
            yield


STAGES = (
    "decode image", "decode mask", "label table", "to tensor", "resize", "crop", "flip", "photometric",
    "normalize + pad",
)  # fmt: skip


def measure_stages(loaders: dict[str, Loader], num_images: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds per image of each stage of our pipelines, as medians over the rounds."""
    rounds: dict[str, list[dict[str, float]]] = {}
    for epoch in range(1, 1 + repeats):
        for name, loader in loaders.items():
            if isinstance(loader, SegmentationDataset):
                clock = StageClock()
                with clock.watching():
                    for index in range(num_images):
                        clock.mark(None)
                        loader[epoch, index]
                        clock.mark("normalize + pad")
                rounds.setdefault(name, []).append(clock.seconds)
    return {
        name: {stage: 1000 / num_images * median(found.get(stage, 0.0) for found in times) for stage in STAGES}
        for name, times in rounds.items()
    }


def measure_setting(
    recipe: Recipe, source: DataSource, variants: dict[str, dict[str, Any]], repeats: int
) -> dict[str, Any]:
    """Return the settings and figures of a row as JSON values."""
    pairs = cast("Sequence[Pair]", source.samples(recipe.data.train_split))
    data = recipe.data
    with TemporaryDirectory() as folder:
        loaders = build_loaders(recipe, source, variants, Path(folder))
        rates = measure_rates(loaders, len(pairs), data.crop, repeats)
        stages = measure_stages(loaders, len(pairs), repeats)
    medians = {name: median(values) for name, values in rates.items()}
    ours = [name for name in medians if name not in (PILLOW, ALBUMENTATIONS)]
    return {
        "images": len(pairs),
        "first_size": Image.open(pairs[0].image).size[::-1],
        "mean_kb": {part: mean_kb([getattr(pair, part) for pair in pairs]) for part in ("image", "mask")},
        "settings": {
            name: getattr(data, name) for name in ("resize", "ratio", "crop", "max_class_share", "photometric")
        },
        "images_per_second": medians,
        "ratios": {
            f"{name} / {other}": medians[name] / medians[other] for name in ours for other in (PILLOW, ALBUMENTATIONS)
        },
        "rounds": rates,
        "stages_ms": stages,
    }


def mean_kb(paths: Sequence[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / len(paths) / 1000


def print_rates(rows: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table(title="Images per second and core, and the ratio ours / other", title_justify="left")
    columns = (OURS, *FASTER, PILLOW, ALBUMENTATIONS)
    table.add_column("setting")
    for heading in ("first image", *columns, "ours / PIL", "ours / albumentations"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        height, width = row["first_size"]
        found = row["images_per_second"]
        cells = [f"{found[column]:.1f}" if column in found else "-" for column in columns]
        ratios = [f"{row['ratios'][f'{OURS} / {other}']:.2f}" for other in (PILLOW, ALBUMENTATIONS)]
        table.add_row(name, f"{width} x {height}", *cells, *ratios)
    console.print(table)


def print_stages(rows: dict[str, dict[str, Any]], console: Console) -> None:
    table = Table(title="Our stages, milliseconds per image", title_justify="left")
    table.add_column("setting")
    for heading in (*STAGES, "all"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        for variant, times in row["stages_ms"].items():
            title = name if variant == OURS else f"  {variant}"
            table.add_row(title, *(f"{times[stage]:.1f}" for stage in STAGES), f"{sum(times.values()):.1f}")
    console.print(table)


def main(data: str | None = None, recipe: str = FOLDER_B0.name, repeats: int = 5, out: Path | None = None) -> None:
    """Measure what loading costs, here and with other libraries, and print tables.

    Args:
        data: The user's data, as segformer train takes it; None: drawn images with the settings of the paper.
        recipe: Recipe whose settings are used for the user's data.
        repeats: Number of rounds that are measured.
        out: JSON file for the results.
    """
    if repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {repeats}")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rows = measure_drawn(repeats) if data is None else measure_user_data(data, recipe, repeats)
    console = Console(width=None if sys.stdout.isatty() else 160)
    print_rates(rows, console)
    print_stages(rows, console)
    if out is not None:
        versions = {library.__name__: library.__version__ for library in LIBRARIES}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"date": when, "machine": describe_machine(), "versions": versions, "repeats": repeats}
        write_json(out, {**about, "rows": rows})


def measure_drawn(repeats: int) -> dict[str, dict[str, Any]]:
    """Return the figures of the settings of the paper, on drawn images."""
    rows = {}
    for setting in SETTINGS:
        with TemporaryDirectory() as folder:
            source = draw_source(setting, Path(folder))
            recipe = replace(FOLDER_B0, data=setting.data)
            rows[setting.name] = measure_setting(recipe, source, setting.variants, repeats)
    return rows


def measure_user_data(spec: str, recipe: str, repeats: int) -> dict[str, dict[str, Any]]:
    """Return the figures of the user's data."""
    given, source = open_user_data(spec, find_recipe(recipe))
    return {f"{Path(source.name).name}, {given.name}": measure_setting(given, source, FASTER, repeats)}


if __name__ == "__main__":
    run_command_line(main)
