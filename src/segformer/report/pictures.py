"""Pictures in a page: shrunk, and embedded as JPEG or PNG."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from segformer.arrays import Array

LONG_SIDE = 640
"""Longest side of an embedded picture, in pixels."""

Picture = tuple[str, Array]
"""A label, and an image (H, W, 3) uint8."""
PictureRow = tuple[str, Sequence[Picture]]
"""A caption, and the pictures that stand side by side below it."""


def pictures(rows: Sequence[PictureRow], *, column_width: int | None = None) -> str:
    """Return rows of pictures, each shrunk to at most 640 pixels a side.

    The pictures of a row share the page's width; with ``column_width`` they stand in columns of at least that many
    pixels.
    """
    columns = f"repeat(auto-fill, minmax(min(100%, {column_width}px), 1fr))"
    style = f' style="grid-template-columns: {columns}"' if column_width else ""
    return "".join(
        f'<div class="sample"><p>{escape(caption)}</p><div class="images"{style}>'
        f"{''.join(_figure(caption, label, image) for label, image in images)}</div></div>"
        for caption, images in rows
    )


def thumbnail(pixels: Array, width: int, height: int) -> Image.Image:
    """Shrink an image (H, W, 3) until it fits; an image that fits is not enlarged."""
    image = Image.fromarray(pixels).convert("RGB")
    # Flat-colored masks keep their exact colors: averaging would invent classes at the edges.
    is_flat = image.getcolors(256) is not None
    image.thumbnail((width, height), Image.Resampling.NEAREST if is_flat else Image.Resampling.LANCZOS)
    return image


def _figure(caption: str, label: str, pixels: Array) -> str:
    image = thumbnail(pixels, LONG_SIDE, LONG_SIDE)
    width, height = image.size
    return (
        f'<figure><img src="{_data_uri(image)}" alt="{escape(f"{caption}: {label}")}" width="{width}" '
        f'height="{height}" decoding="async"><figcaption>{escape(label)}</figcaption></figure>'
    )


def _data_uri(image: Image.Image) -> str:
    """Encode as JPEG or PNG, whichever is smaller: JPEG suits photographs, PNG suits masks."""
    encodings = {}
    for kind in ("jpeg", "png"):
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=88, optimize=True)
        encodings[kind] = buffer.getvalue()
    kind = min(encodings, key=lambda kind: len(encodings[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(encodings[kind]).decode()}"
