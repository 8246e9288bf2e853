"""Maps as colours, and Figure 3's layout as one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Floats = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

DECADES = 4
SCALE = f"Log scale: yellow is a map's own maximum, dark violet 1/{10**DECADES:,} of it or less."
# Nine points of viridis: even steps of lightness, readable without colour vision.
VIRIDIS = np.array([
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
    (170, 220, 50), (253, 231, 37),
])  # fmt: skip
TILE, GAP, MARGIN = 240, 12, 24  # of the figure, in pixels
TITLE_SIZE, TEXT_SIZE = 18, 14


def colored(values: Floats) -> Pixels:
    """Values of 0 (violet) to 1 (yellow) as colours.  (H, W) -> (H, W, 3)"""
    places = np.linspace(0, 1, len(VIRIDIS))
    channels = [np.interp(values.clip(0, 1), places, VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=2).round().astype(np.uint8)


def log_scaled(values: Floats) -> Floats:
    """Non-negative values -> 1 at their maximum, 0 at 1/10000 of it or less, evenly in the logarithm."""
    peak = values.max()
    if peak == 0:
        return np.zeros_like(values)
    return np.asarray(1 + np.log10(np.maximum(values / peak, 10.0**-DECADES)) / DECADES)


def pooled(values: Floats, side: int) -> Floats:
    """Average blocks until the longer side is at most ``side``: no mass falls between the pixels of a picture."""
    block = -(-max(values.shape) // side)
    height, width = (length // block * block for length in values.shape)
    top, left = (values.shape[0] - height) // 2, (values.shape[1] - width) // 2
    inner = values[top : top + height, left : left + width]
    return np.asarray(inner.reshape(height // block, block, width // block, block).mean(axis=(1, 3)))


def field_picture(values: Floats, side: int = TILE) -> Pixels:
    """Picture a receptive field on the log scale, its longer side about ``side`` pixels or less.  -> (h, w, 3)"""
    return colored(log_scaled(pooled(values, side)))


def central(values: Floats) -> Floats:
    """Cut out the central quarter of each side."""
    height, width = values.shape
    rows, columns = (slice(side // 2 - side // 8, side // 2 + side // 8) for side in (height, width))
    return values[rows, columns]


def over_image(values: Floats, image: Pixels) -> Pixels:
    """Lay a map, scaled from its minimum to its maximum, over the grey image.  (h, w), (H, W, 3) -> (H, W, 3)"""
    height, width = image.shape[:2]
    span = (values.max() - values.min()) or 1.0
    scaled = Image.fromarray(((values - values.min()) / span).astype(np.float32))
    upsampled = np.asarray(scaled.resize((width, height), Image.Resampling.BILINEAR))
    grey = np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
    return (0.65 * colored(upsampled) + 0.35 * grey).round().astype(np.uint8)


def marked(image: Pixels, position: tuple[int, int]) -> Pixels:
    """Draw a cross at (row, column)."""
    picture = Image.fromarray(image.copy())
    (row, column), arm = position, max(3, min(image.shape[:2]) // 24)
    for color, width in (("white", 5), ("crimson", 2)):
        for dx, dy in ((arm, 0), (0, arm)):
            ImageDraw.Draw(picture).line((column - dx, row - dy, column + dx, row + dy), fill=color, width=width)
    return np.asarray(picture)


def figure(rows: Mapping[str, Mapping[str, Floats]], columns: Sequence[str]) -> Image.Image:
    """Set maps as in Figure 3: a row for each label, a column for each output, and the scale below.

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
    for number, (label, maps) in enumerate(rows.items()):
        top = MARGIN + TITLE_SIZE + GAP + number * band
        draw.text((MARGIN, top), label, "black", text)
        for left, name in zip(lefts, columns, strict=True):
            if name in maps:
                field = Image.fromarray(field_picture(maps[name])).resize(tile, Image.Resampling.BILINEAR)
                picture.paste(field, (left, top + TITLE_SIZE + GAP // 2))
    draw_scale(picture, picture.height - MARGIN - 2 * TEXT_SIZE, text)
    return picture


def draw_scale(picture: Image.Image, top: int, font: Any) -> None:
    """Draw the bar of colours, with the powers of ten below it."""
    draw, width = ImageDraw.Draw(picture), picture.width - 2 * MARGIN
    bar = colored(np.linspace(0, 1, width)[None].repeat(TEXT_SIZE // 2, axis=0))
    picture.paste(Image.fromarray(bar), (MARGIN, top))
    for decade in range(DECADES + 1):
        anchor = {0: "la", DECADES: "ra"}.get(decade, "ma")
        label = "maximum" if decade == DECADES else f"{10.0 ** (decade - DECADES):g} of the maximum"
        place = (MARGIN + width * decade / DECADES, top + TEXT_SIZE // 2 + 3)
        draw.text(place, label, "black", font, anchor=anchor)
