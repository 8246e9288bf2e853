"""labelme and Cityscapes JSON files, each of which contains the labeled areas of one image."""

import base64
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from segformer.data.decoding import decode
from segformer.data.masks import index_mask
from segformer.data.sources.polygons import Outline, Shape
from segformer.data.sources.run_lengths import Runs
from segformer.errors import UserError
from segformer.files import read_json

AREAS = ("polygon", "rectangle", "oriented_rectangle", "rotation", "circle", "mask")  # shape_type in labelme and others
NO_AREAS = ("line", "linestrip", "point", "points")


def read_shapes(path: Path) -> tuple[tuple[Shape, ...], tuple[int, int] | None]:
    """Return (labeled areas, (height, width) of the image or None) of a labelme or Cityscapes file.

    Rectangles and circles become polygons.  For a wrong shape, raises a UserError that names the file and the shape.
    """
    values = read_json(path)
    rows = values.get("shapes", values.get("objects")) if isinstance(values, dict) else None
    if not isinstance(rows, list):
        raise UserError(f'{path}: expected labelme ("shapes") or Cityscapes ("objects") JSON')
    height, width = (values.get(f"image{s}", values.get(f"img{s}")) for s in ("Height", "Width"))
    shapes = [_shape(row, f"{path}, shape {number}") for number, row in enumerate(rows)]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    if size and min(size) < 1:
        raise UserError(f"{path}: expected an image height and width above 0, got {height} x {width}; correct them")
    return tuple(shape for shape in shapes if shape), size


def _shape(row: Any, where: str) -> Shape | None:
    try:
        label, kind = str(row["label"]), row.get("shape_type") or "polygon"
        points = tuple((float(x), float(y)) for x, y in row.get("points", row.get("polygon")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: expected a label and points (x, y), got {row!r:.80}; correct or remove it"
        ) from error
    if kind in NO_AREAS:
        return None
    if kind not in AREAS:
        raise UserError(
            f"{where}: expected a shape_type of {', '.join(AREAS + NO_AREAS)}, got {kind!r}; draw it as a polygon"
        )
    if not math.isfinite(sum(map(sum, points))):
        raise UserError(f"{where}: expected points of finite numbers, got {points!r:.80}; correct or remove it")
    if kind == "mask":
        return label, _bitmap(row.get("mask"), points, where)
    if kind == "circle":
        points = _circle(points, where)
    elif kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return (label, points) if len(points) >= 3 else None  # one or two points cover no area


def _circle(points: Outline, where: str) -> Outline:
    if len(points) != 2:
        raise UserError(f"{where}: expected the center of a circle and a point on it, got {len(points)} points")
    (x, y), (u, v) = points
    radius = np.hypot(u - x, v - y)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return tuple((x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles)


def _bitmap(text: Any, points: Outline, where: str) -> Runs:
    """Decode a mask that labelme's AI tools drew: a PNG in base64, which fills the box between two corners."""
    try:
        (left, top), (right, bottom) = ((round(x), round(y)) for x, y in points)
        data = base64.b64decode(text)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: expected two corners and a mask (PNG in base64); draw it again") from error
    pixels = index_mask(decode(BytesIO(data), where), where) > 0
    height, width = bottom - top + 1, right - left + 1
    if max(abs(pixels.shape[0] - height), abs(pixels.shape[1] - width)) > 1:  # labelme may crop it at the image's edge
        raise UserError(
            f"{where}: expected a mask of {height} x {width} (height x width) between its corners, got "
            f"{pixels.shape[0]} x {pixels.shape[1]}; draw it again"
        )
    return Runs.from_pixels(pixels, (left, top))
