"""Contact sheets of a data set: images next to their masks, and augmented training samples."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segformer.arrays import Array, to_pixels
from segformer.config import IGNORE_INDEX, Color, Recipe, default_palette
from segformer.data.dataset import Pair, Sample
from segformer.data.doctor.diagnosis import Diagnosis
from segformer.data.doctor.facts import SampleFacts, label_facts
from segformer.data.doctor.items import Item, Survey
from segformer.data.doctor.labels import Labels
from segformer.data.doctor.survey import Data, in_order, survey
from segformer.data.images import Decoding, displayed
from segformer.data.loading import SegmentationDataset
from segformer.data.sources.catalog import open_data, with_data
from segformer.data.transforms import SegmentationTransform
from segformer.errors import UserError
from segformer.files import write_bytes
from segformer.segmentation import colorize, png

NUM_COLUMNS = 3  # pairs in a row
CELL = 200  # width of an image or a mask on a sheet
MARGIN = 8
LINE = 18  # height of a line of text

Tile = tuple[str, Array, Array]
"""A sample: its name, its image, and its mask of class indices.  str, (H, W, 3) uint8, (H, W)"""


def recipe_for(recipe: Recipe, data: str, diagnosis: Diagnosis) -> Recipe:
    """Return the recipe with ``data`` as its data set, and with raw pixels if 8-bit RGB would lose information."""
    recipe = replace(recipe, data=with_data(recipe.data, data))
    if not (diagnosis.raw and diagnosis.mean):
        return recipe
    pixels = replace(recipe.preprocessing, pixels="raw", mean=diagnosis.mean, std=diagnosis.std)
    return replace(recipe, preprocessing=pixels, model=replace(recipe.model, in_channels=len(diagnosis.mean)))


def write_sheets(recipe: Recipe, out: Path, *, augmented: bool) -> list[Path]:
    """Write pairs.png, and augmented.png if ``augmented`` is set; returns the paths of the written files.

    A sheet that cannot be drawn, because its data cannot be read, is left out.
    """
    written = []
    for name in ("pairs.png", "augmented.png") if augmented else ("pairs.png",):
        with suppress(UserError):  # the data cannot be shown; the diagnosis says why
            sheet = contact_sheet(recipe.data) if name == "pairs.png" else augmented_sheet(recipe)
            write_bytes(out / name, png(sheet))
            written.append(out / name)
    return written


def contact_sheet(data: Data, count: int = 12) -> Array:
    """Draw up to ``count`` images, evenly spaced over the data set, next to their colored masks.  -> (H, W, 3) uint8

    Samples that cannot be read are skipped; raises a UserError if no sample can be read.
    """
    found = survey(data)
    pairs = [item for item in in_order(found.items) if item.drawn or (item.image and item.mask)]
    chosen = [pairs[k] for k in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int))] if pairs else []
    samples = []
    for item in chosen:
        with suppress(UserError, OSError):
            samples.append((f"{item.split}/{item.name}", *read_displayed(sample_of(item))))
    if not samples:
        raise UserError(f"{found.name}: expected images with masks, but none could be read")
    labels, palette = labels_of(found, [mask for _, _, mask in samples])
    assert labels.table is not None
    tiles = []
    for name, image, mask in samples:
        classes = labels.table.look_up(mask)
        tiles.append((name, image, np.where(classes < 0, IGNORE_INDEX, classes)))
    return draw_sheet(tiles, labels.classes, palette)


def sample_of(item: Item) -> Sample:
    """Return the sample of an item that has both an image and a mask."""
    if item.drawn:
        return item.drawn
    assert item.image
    assert item.mask
    return Pair(item.name, item.image, item.mask)


def labels_of(found: Survey, masks: Sequence[Array]) -> tuple[Labels, Sequence[Color]]:
    """Return labels and palette of a data set; if its classes are not described, they are counted in ``masks``."""
    if found.table is not None:
        return Labels(found.table, found.classes, False), found.palette
    labels = Labels.from_masks([SampleFacts(split="", **label_facts(mask)) for mask in masks])
    return labels, default_palette(len(labels.classes))


def read_displayed(sample: Sample) -> tuple[Array, Array]:
    """Read an image for display, and its mask; images not readable as RGB are stretched.  -> (H, W, 3) uint8, (H, W)"""
    try:
        return sample.read()
    except UserError:
        image, mask = sample.read(Decoding("raw", None))
        return displayed(image), mask


def augmented_sheet(recipe: Recipe, count: int = 12) -> Array:
    """Draw training samples as the model receives them, with the normalization undone.  -> (H, W, 3) uint8"""
    source = open_data(recipe.data)
    samples = source.samples(recipe.data.train_split)
    dataset = SegmentationDataset(
        samples,
        source.table,
        SegmentationTransform(recipe.data, recipe.preprocessing),
        recipe.train.seed,
        Decoding.from_model(recipe.model, recipe.preprocessing),
    )
    mean, std = (np.array(values) for values in (recipe.preprocessing.mean, recipe.preprocessing.std))
    tiles = []
    for epoch in range(count):
        index = epoch * len(samples) // count
        image, mask = dataset[epoch, index]
        pixels = to_pixels(image) * std + mean
        shown = displayed(pixels) if recipe.preprocessing.pixels == "raw" else pixels.round().clip(0, 255)
        tiles.append((samples[index].name, shown.astype(np.uint8), mask.numpy()))
    return draw_sheet(tiles, source.classes, source.palette)


def draw_sheet(tiles: Sequence[Tile], classes: Sequence[str], palette: Sequence[Color]) -> Array:
    """Draw each image next to its colored mask, three pairs per row, with a legend below.  -> (H, W, 3) uint8"""
    height, width = tiles[0][1].shape[:2]
    cell = (CELL, min(round(CELL * height / width), 2 * CELL))
    pitch = (2 * CELL + 2 * MARGIN, cell[1] + LINE + MARGIN)
    font = ImageFont.load_default(12)
    sheet_width = NUM_COLUMNS * pitch[0] + MARGIN
    legend = legend_positions((*classes, "ignored"), font, sheet_width)
    top = -(-len(tiles) // NUM_COLUMNS) * pitch[1] + MARGIN
    sheet = Image.new("RGB", (sheet_width, top + legend[-1][1] + LINE + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (name, image, mask) in enumerate(tiles):
        row, column = divmod(k, NUM_COLUMNS)
        x, y = MARGIN + column * pitch[0], MARGIN + row * pitch[1]
        draw.text((x, y), name, "black", font)
        sheet.paste(fitted(image, cell, Image.Resampling.BILINEAR), (x, y + LINE))
        sheet.paste(fitted(colorize(mask, palette), cell, Image.Resampling.NEAREST), (x + CELL, y + LINE))
    for (x, y), name, color in zip(legend, (*classes, "ignored"), (*palette, (0, 0, 0)), strict=True):
        draw.rectangle((x, top + y + 2, x + 11, top + y + 13), tuple(color), "black")
        draw.text((x + 16, top + y), name, "black", font)
    return np.asarray(sheet)


def fitted(picture: Array, cell: tuple[int, int], method: Image.Resampling) -> Image.Image:
    """Resize an image to fit into a cell (width, height), with its aspect ratio preserved.  (H, W, 3) uint8"""
    height, width = picture.shape[:2]
    scale = min(cell[0] / width, cell[1] / height)
    return Image.fromarray(picture).resize((max(1, round(width * scale)), max(1, round(height * scale))), method)


def legend_positions(names: Sequence[str], font: Any, width: int) -> list[tuple[int, int]]:
    """Return (x, y) of each name in a legend whose lines are at most ``width`` pixels wide."""
    positions = []
    x, y = MARGIN, 0
    for name in names:
        length = 16 + int(font.getlength(name)) + 2 * MARGIN
        if x + length > width and x > MARGIN:
            x, y = MARGIN, y + LINE
        positions.append((x, y))
        x += length
    return positions
