"""Masks drawn from polygons: labelme and Cityscapes JSON beside each image, one COCO JSON for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segformer.data.dataset import check_sizes
from segformer.data.images import RGB, Decoding, read_image
from segformer.files import read_json

Array = NDArray[Any]
Shape = tuple[str, tuple[tuple[float, float], ...]]
BACKGROUND = "background"  # class 0: what no polygon covers


@dataclass(frozen=True)
class PolygonPair:
    """An image file with the polygons of its classes, later ones on top; what they leave is class 0."""

    name: str
    image: Path
    mask: Path
    """The JSON file."""
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None
    """Height and width of the image as annotated."""
    classes: tuple[str, ...]

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode the image and draw the mask; raises a ValueError where the image has another size than annotated."""
        if self.size is None:  # the polygons are drawn at the image's own size
            decoding = replace(decoding, enough=None)
        image = read_image(self.image, decoding)
        height, width = self.size or image.shape[:2]
        drawn = draw(self.shapes, self.classes, (height, width))
        check_sizes(image, drawn, self, decoding)
        return image, drawn


def draw(shapes: Sequence[Shape], classes: Sequence[str], size: tuple[int, int]) -> Array:
    """Fill polygons with their classes, in order.  -> (H, W) uint8"""
    canvas = Image.new("L", (size[1], size[0]), 0)
    pen = ImageDraw.Draw(canvas)
    for label, points in shapes:
        pen.polygon(points, fill=classes.index(label))
    return np.asarray(canvas)


def read_shapes(path: Path) -> tuple[tuple[Shape, ...], tuple[int, int] | None]:
    """Polygons and image size of a labelme or Cityscapes file; rectangles and circles become polygons.

    Raises a ValueError that names the file and the shape at fault.
    """
    values = read_json(path)
    rows = values.get("shapes", values.get("objects")) if isinstance(values, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f'{path}: expected labelme ("shapes") or Cityscapes ("objects") JSON')
    height, width = (values.get(f"image{s}", values.get(f"img{s}")) for s in ("Height", "Width"))
    shapes = [_shape(row, path, number) for number, row in enumerate(rows)]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return tuple(shape for shape in shapes if shape), size


def _shape(row: Any, path: Path, number: int) -> Shape | None:
    try:
        label, kind = str(row["label"]), row.get("shape_type") or "polygon"
        points = tuple((float(x), float(y)) for x, y in row.get("points", row.get("polygon")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}, shape {number}: expected a label and points (x, y)") from error
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    elif kind == "circle" and len(points) == 2:
        (x, y), (u, v) = points
        angles, radius = np.linspace(0, 2 * np.pi, 64, endpoint=False), np.hypot(u - x, v - y)
        points = tuple((x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles)
    return (label, points) if len(points) >= 3 else None  # a line or a point covers nothing


def read_coco(path: Path, images: Path) -> tuple[list[PolygonPair], tuple[str, ...]]:
    """Images of a COCO instances file with their polygons, and its classes after the background.

    Raises FileNotFoundError for an image that is not there, a ValueError for masks that are no polygons.
    """
    values = read_json(path)
    names = {row["id"]: str(row["name"]) for row in sorted(values["categories"], key=lambda row: row["id"])}
    classes = (BACKGROUND, *(name for name in names.values() if name != BACKGROUND))
    shapes: dict[int, list[Shape]] = {row["id"]: [] for row in values["images"]}
    for row in sorted(values["annotations"], key=lambda row: -float(row.get("area", 0))):  # small ones on top
        shapes[row["image_id"]] += _coco_shapes(row, names, path)
    pairs = []
    for row in values["images"]:
        image = images / row["file_name"]
        if not image.is_file():
            raise FileNotFoundError(f"{image}: named in {path.name}, but not there")
        name = Path(row["file_name"]).with_suffix("").as_posix()
        pairs.append(PolygonPair(name, image, path, tuple(shapes[row["id"]]), (row["height"], row["width"]), classes))
    return pairs, classes


def is_coco(path: Path) -> bool:
    """Whether a JSON file is one of COCO's kind."""
    values = read_json(path)
    return isinstance(values, dict) and {"images", "annotations", "categories"} <= values.keys()


def _coco_shapes(row: Mapping[str, Any], names: Mapping[int, str], path: Path) -> list[Shape]:
    parts = row.get("segmentation", [])
    if not isinstance(parts, list):
        raise ValueError(
            f"{path}, annotation {row.get('id')}: expected polygons, got a run-length mask; export polygons instead"
        )
    return [
        (names[row["category_id"]], tuple(zip(part[::2], part[1::2], strict=True))) for part in parts if len(part) >= 6
    ]
