"""Drawing of maps of numbers in color, and a figure of several maps, arranged like Figure 3 of the paper."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segformer.arrays import Array

DECADES = 4  # powers of ten that the log scale covers
SCALE = f"Log scale: yellow is the maximum of each map, dark violet is 1/{10**DECADES:,} of the maximum or less."
# Nine colors of viridis; their lightness rises in even steps, so that color-blind readers can read the map.
VIRIDIS = np.array([
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
    (170, 220, 50), (253, 231, 37),
])  # fmt: skip
TILE = 240  # longer side of a map in the figure, in pixels
GAP = 12  # space between maps, in pixels
MARGIN = 24  # width of the margin around the figure, in pixels
TITLE_SIZE = 18  # font size of the column titles, in pixels
TEXT_SIZE = 14  # font size of all other texts, in pixels


def colored(values: Array) -> Array:
    """Convert values to colors, from violet for 0 to yellow for 1.  (H, W) -> (H, W, 3) uint8"""
    positions = np.linspace(0, 1, len(VIRIDIS))
    channels = [np.interp(values.clip(0, 1), positions, VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def log_scaled(values: Array) -> Array:
    """Scale non-negative values logarithmically: the maximum becomes 1; 1/10,000 of the maximum or less becomes 0."""
    peak = values.max()
    if peak == 0:
        return np.zeros_like(values)
    return np.asarray(1 + np.log10(np.maximum(values / peak, 10.0**-DECADES)) / DECADES)


def pooled(values: Array, side: int) -> Array:
    """Shrink a map to at most ``side`` values in height and width.

    Square blocks of values are averaged, because picking single values could miss small peaks.  Rows and columns at
    the edges that do not fill a block are cut off.
    """
    block = -(-max(values.shape) // side)
    height, width = (length // block * block for length in values.shape)
    top, left = (values.shape[0] - height) // 2, (values.shape[1] - width) // 2
    inner = values[top : top + height, left : left + width]
    return np.asarray(inner.reshape(height // block, block, width // block, block).mean(axis=(1, 3)))


def field_picture(values: Array, side: int = TILE) -> Array:
    """Draw a receptive field on the log scale, at most ``side`` pixels high and wide.  (H, W) -> (h, w, 3) uint8"""
    return colored(log_scaled(pooled(values, side)))


def central(values: Array) -> Array:
    """Cut out the center of a map: a quarter of the height and a quarter of the width."""
    height, width = values.shape
    rows, columns = (slice(side // 2 - side // 8, side // 2 + side // 8) for side in (height, width))
    return values[rows, columns]


def over_image(values: Array, image: Array) -> Array:
    """Draw a map in color over the grayscale image.  (h, w), (H, W, 3) uint8 -> (H, W, 3) uint8

    The lowest value of the map is violet, the highest is yellow.
    """
    height, width = image.shape[:2]
    span = (values.max() - values.min()) or 1.0
    scaled = Image.fromarray(((values - values.min()) / span).astype(np.float32))
    upsampled = np.asarray(scaled.resize((width, height), Image.Resampling.BILINEAR))
    gray = np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
    return (0.65 * colored(upsampled) + 0.35 * gray).round().astype(np.uint8)


def marked(image: Array, position: tuple[int, int]) -> Array:
    """Return a copy of an image with a cross at the position (row, column).  (H, W, 3) uint8 -> (H, W, 3) uint8"""
    picture = Image.fromarray(image.copy())
    row, column = position
    arm = max(3, min(image.shape[:2]) // 24)
    for color, width in (("white", 5), ("crimson", 2)):
        for dx, dy in ((arm, 0), (0, arm)):
            ImageDraw.Draw(picture).line((column - dx, row - dy, column + dx, row + dy), fill=color, width=width)
    return np.asarray(picture)


def figure(rows: Mapping[str, Mapping[str, Array]], columns: Sequence[str]) -> Image.Image:
    """Arrange maps as in Figure 3 of the paper, with the color scale below them.

    ``rows`` contains, for each row label, the maps by column name.  If a row has no map for a column, that place is
    left blank.
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
    """Draw the color scale, ``top`` pixels below the upper edge: a bar of colors, with powers of ten below the bar."""
    draw = ImageDraw.Draw(picture)
    width = picture.width - 2 * MARGIN
    bar = colored(np.linspace(0, 1, width)[None].repeat(TEXT_SIZE // 2, axis=0))
    picture.paste(Image.fromarray(bar), (MARGIN, top))
    for decade in range(DECADES + 1):
        anchor = {0: "la", DECADES: "ra"}.get(decade, "ma")
        label = "maximum" if decade == DECADES else f"{10.0 ** (decade - DECADES):g} of the maximum"
        corner = (MARGIN + width * decade / DECADES, top + TEXT_SIZE // 2 + 3)
        draw.text(corner, label, "black", font, anchor=anchor)
