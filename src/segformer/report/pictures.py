"""Pictures that are shrunk and embedded in a page as JPEG or PNG."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from segformer.arrays import Array

LONG_SIDE = 640
"""Largest width or height of an embedded picture, in pixels."""

Picture = tuple[str, Array]
"""A label and an image.  (H, W, 3) uint8"""
PictureRow = tuple[str, Sequence[Picture]]
"""A caption and the pictures that are shown side by side below it."""


def pictures(rows: Sequence[PictureRow], *, column_width: int | None = None) -> str:
    """Return rows of pictures, each shrunk to at most 640 pixels in height and width.

    The pictures of a row share the width of the page.  With ``column_width``, the pictures of a row are arranged in
    columns that are at least this many pixels wide, on several lines if necessary.
    """
    columns = f"repeat(auto-fill, minmax(min(100%, {column_width}px), 1fr))"
    style = f' style="grid-template-columns: {columns}"' if column_width else ""
    return "".join(
        f'<div class="sample"><p>{escape(caption)}</p><div class="images"{style}>'
        f"{''.join(_figure(caption, label, image) for label, image in images)}</div></div>"
        for caption, images in rows
    )


def thumbnail(pixels: Array, width: int, height: int) -> Image.Image:
    """Shrink an image to at most this width and height, in pixels; a smaller image is not enlarged.  (H, W, 3)"""
    image = Image.fromarray(pixels).convert("RGB")
    # Masks keep their exact colors, because averaging would create colors of other classes at the edges.
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
    """Encode an image as JPEG or PNG, whichever is smaller: usually JPEG for photographs and PNG for masks."""
    encodings = {}
    for kind in ("jpeg", "png"):
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=88, optimize=True)
        encodings[kind] = buffer.getvalue()
    kind = min(encodings, key=lambda kind: len(encodings[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(encodings[kind]).decode()}"
