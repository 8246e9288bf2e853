"""Maps drawn in color, and Figure 3 of the paper as one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segformer.arrays import Array

DECADES = 4  # of the log scale
SCALE = f"Log scale: yellow is the maximum of a map, dark violet is 1/{10**DECADES:,} of it or less."
# Nine points of viridis: even steps of lightness, readable without color vision.
VIRIDIS = np.array([
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
    (170, 220, 50), (253, 231, 37),
])  # fmt: skip
TILE = 240  # longer side of a map in the figure, in pixels
GAP = 12  # between maps, in pixels
MARGIN = 24  # around the figure, in pixels
TITLE_SIZE = 18  # of the font, in pixels
TEXT_SIZE = 14  # of the font, in pixels


def colored(values: Array) -> Array:
    """Map values from 0 (violet) to 1 (yellow) to colors.  (H, W) -> (H, W, 3) uint8"""
    positions = np.linspace(0, 1, len(VIRIDIS))
    channels = [np.interp(values.clip(0, 1), positions, VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def log_scaled(values: Array) -> Array:
    """Scale non-negative values: 1 at their maximum, 0 at 1/10000 of it or less, linear in the logarithm."""
    peak = values.max()
    if peak == 0:
        return np.zeros_like(values)
    return np.asarray(1 + np.log10(np.maximum(values / peak, 10.0**-DECADES)) / DECADES)


def pooled(values: Array, side: int) -> Array:
    """Shrink by averaging blocks until the longer side is at most ``side``; no small peak is lost."""
    block = -(-max(values.shape) // side)
    height, width = (length // block * block for length in values.shape)
    top, left = (values.shape[0] - height) // 2, (values.shape[1] - width) // 2
    inner = values[top : top + height, left : left + width]
    return np.asarray(inner.reshape(height // block, block, width // block, block).mean(axis=(1, 3)))


def field_picture(values: Array, side: int = TILE) -> Array:
    """Draw a receptive field on the log scale, with at most ``side`` pixels a side.  -> (h, w, 3) uint8"""
    return colored(log_scaled(pooled(values, side)))


def central(values: Array) -> Array:
    """Cut out the center: a quarter of each side."""
    height, width = values.shape
    rows, columns = (slice(side // 2 - side // 8, side // 2 + side // 8) for side in (height, width))
    return values[rows, columns]


def over_image(values: Array, image: Array) -> Array:
    """Draw a map, scaled from its minimum to its maximum, over the gray image.  (h, w), (H, W, 3) -> (H, W, 3)"""
    height, width = image.shape[:2]
    span = (values.max() - values.min()) or 1.0
    scaled = Image.fromarray(((values - values.min()) / span).astype(np.float32))
    upsampled = np.asarray(scaled.resize((width, height), Image.Resampling.BILINEAR))
    gray = np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
    return (0.65 * colored(upsampled) + 0.35 * gray).round().astype(np.uint8)


def marked(image: Array, position: tuple[int, int]) -> Array:
    """Draw a cross at (row, column)."""
    picture = Image.fromarray(image.copy())
    row, column = position
    arm = max(3, min(image.shape[:2]) // 24)
    for color, width in (("white", 5), ("crimson", 2)):
        for dx, dy in ((arm, 0), (0, arm)):
            ImageDraw.Draw(picture).line((column - dx, row - dy, column + dx, row + dy), fill=color, width=width)
    return np.asarray(picture)


def figure(rows: Mapping[str, Mapping[str, Array]], columns: Sequence[str]) -> Image.Image:
    """Arrange maps as in Figure 3: a row for each label, a column for each output, and the color scale below.

    An output that a row does not have is left blank.
    """
    title, text = (ImageFont.load_default(size) for size in (TITLE_SIZE, TEXT_SIZE))
    shape = next(iter(next(iter(rows.values())).values())).shape
    tile = (round(TILE * shape[1] / max(shape)), round(TILE * shape[0] / max(shape)))
    band = tile[1] + 2 * TITLE_SIZE + GAP
    width = 2 * MARGIN + len(columns) * (tile[0] + GAP) - GAP
    picture = Image.new("RGB", (width, 2 * MARGIN + TITLE_SIZE + len(rows) * band + 3 * TEXT_SIZE), "white")
    draw = ImageDraw.Draw(picture)
    lefts = [MARGIN + i * (tile[0] + GAP) for i in range(len(columns))]
    for left, name in zip(lefts, columns, strict=True):
        draw.text((left + tile[0] / 2, MARGIN), name, "black", title, anchor="ma")
    for i, (label, maps) in enumerate(rows.items()):
        top = MARGIN + TITLE_SIZE + GAP + i * band
        draw.text((MARGIN, top), label, "black", text)
        for left, name in zip(lefts, columns, strict=True):
            if name in maps:
                field = Image.fromarray(field_picture(maps[name])).resize(tile, Image.Resampling.BILINEAR)
                picture.paste(field, (left, top + TITLE_SIZE + GAP // 2))
    draw_scale(picture, picture.height - MARGIN - 2 * TEXT_SIZE, text)
    return picture


def draw_scale(picture: Image.Image, top: int, font: Any) -> None:
    """Draw the bar of colors, with powers of ten below it."""
    draw = ImageDraw.Draw(picture)
    width = picture.width - 2 * MARGIN
    bar = colored(np.linspace(0, 1, width)[None].repeat(TEXT_SIZE // 2, axis=0))
    picture.paste(Image.fromarray(bar), (MARGIN, top))
    for decade in range(DECADES + 1):
        anchor = {0: "la", DECADES: "ra"}.get(decade, "ma")
        label = "maximum" if decade == DECADES else f"{10.0 ** (decade - DECADES):g} of the maximum"
        corner = (MARGIN + width * decade / DECADES, top + TEXT_SIZE // 2 + 3)
        draw.text(corner, label, "black", font, anchor=anchor)
