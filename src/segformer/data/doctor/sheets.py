"""Contact sheets of a data set: pairs as they are, and augmented training samples."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Color, Recipe, default_palette
from segformer.data.dataset import DataSource, Pair, Sample
from segformer.data.doctor.diagnosis import Diagnosis
from segformer.data.doctor.faults import Look, class_of
from segformer.data.doctor.survey import (
    Data,
    as_config,
    counted_classes,
    label_facts,
    split_rank,
    survey_config,
    survey_source,
)
from segformer.data.images import Decoding, displayed
from segformer.data.loading import SegmentationDataset
from segformer.data.sources.catalog import open_data, with_data
from segformer.data.transforms import SegmentationTransform
from segformer.errors import UserError
from segformer.files import write_bytes
from segformer.segmentation import colorize, png

NUM_COLUMNS, CELL, MARGIN, LINE = 3, 200, 8, 18  # of a sheet, in pixels but the first


def recipe_for(recipe: Recipe, data: str, diagnosis: Diagnosis) -> Recipe:
    """Return a recipe for these data and their channels."""
    recipe = replace(recipe, data=with_data(recipe.data, data))
    if not (diagnosis.raw and diagnosis.mean):
        return recipe
    pixels = replace(recipe.preprocessing, pixels="raw", mean=diagnosis.mean, std=diagnosis.std)
    return replace(recipe, preprocessing=pixels, model=replace(recipe.model, in_channels=len(diagnosis.mean)))


def write_sheets(recipe: Recipe, out: Path, *, augmented: bool) -> list[Path]:
    """Write pairs.png, and where the data can be trained on augmented.png; returns what was written."""
    names = ("pairs.png", "augmented.png") if augmented else ("pairs.png",)
    written = []
    for name in names:
        with suppress(ValueError):  # nothing to be seen; the diagnosis says why
            sheet = contact_sheet(recipe.data) if name == "pairs.png" else augmented_sheet(recipe)
            write_bytes(out / name, png(sheet))
            written.append(out / name)
    return written


def contact_sheet(data: Data, count: int = 12) -> Array:
    """Images beside their masks in colours, evenly spaced over the data set.  -> (H, W, 3) uint8

    What can not be read is left out; raises a UserError where nothing can.
    """
    survey = survey_source(data) if isinstance(data, DataSource) else survey_config(as_config(data))
    pairs = [item for item in sorted(survey.items, key=split_rank) if item.drawn or (item.image and item.mask)]
    chosen = [pairs[k] for k in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int))] if pairs else []
    samples = []
    for item in chosen:
        sample = item.drawn or Pair(item.name, *(path for path in (item.image, item.mask) if path))
        with suppress(ValueError, OSError):
            samples.append((f"{item.split}/{item.name}", *picture_of(sample)))
    if not samples:
        raise UserError(f"{survey.name}: expected images with masks to show, none could be read")
    classes, palette, table = survey.classes, survey.palette, survey.table
    if table is None:
        classes, table = counted_classes([Look(split="", **label_facts(mask)) for _, _, mask in samples])
        palette = default_palette(len(classes))
    assert table is not None
    tiles = [
        (name, image, np.where((k := class_of(table, mask)) < 0, IGNORE_INDEX, k)) for name, image, mask in samples
    ]
    return draw_sheet(tiles, classes, palette)


def picture_of(sample: Sample) -> tuple[Array, Array]:
    """Image (H, W, 3) uint8 to be looked at, and mask; channels that are no RGB are shown as far as they can be."""
    try:
        return sample.read()
    except ValueError:
        image, mask = sample.read(Decoding("raw", None))
        return displayed(image), mask


def augmented_sheet(recipe: Recipe, count: int = 12) -> Array:
    """Training samples as the model gets them, in colours of before the normalisation.  -> (H, W, 3) uint8"""
    source = open_data(recipe.data)
    samples = source.samples(recipe.data.train_split)
    dataset = SegmentationDataset(
        samples,
        source.table,
        SegmentationTransform(recipe.data, recipe.preprocessing),
        recipe.train.seed,
        Decoding.from_model(recipe.model, recipe.preprocessing),
    )
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (recipe.preprocessing.mean, recipe.preprocessing.std))
    tiles = []
    for epoch in range(count):
        index = epoch * len(samples) // count
        image, mask = (tensor.numpy() for tensor in dataset[epoch, index])
        pixels = (image * std + mean).transpose(1, 2, 0)
        shown = displayed(pixels) if recipe.preprocessing.pixels == "raw" else pixels.round().clip(0, 255)
        tiles.append((samples[index].name, shown.astype(np.uint8), mask))
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
