"""Masks drawn from polygons and run lengths: labelme and Cityscapes JSON beside each image, one COCO JSON for all."""

import base64
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from segformer.arrays import Array
from segformer.data.dataset import check_sizes
from segformer.data.images import RGB, Decoding, decode, index_mask, read_image
from segformer.errors import UserError
from segformer.files import read_json

Outline = tuple[tuple[float, float], ...]
BACKGROUND = "background"  # class 0: what no polygon covers
AREAS = (
    "polygon",
    "rectangle",
    "oriented_rectangle",
    "rotation",
    "circle",
    "mask",
)  # shape_type of labelme and its kin
NO_AREAS = ("line", "linestrip", "point", "points")
PARTS = {"image": "images", "annotation": "annotations", "category": "categories"}  # of a COCO file


@dataclass(frozen=True)
class Runs:
    """Pixels of a box by their runs, down column after column: so many out, so many in, so many out ..."""

    counts: tuple[int, ...]
    corner: tuple[int, int]
    """Left and top of the box in the image."""
    size: tuple[int, int]
    """Height and width of the box."""

    @classmethod
    def of(cls, pixels: Array, corner: tuple[int, int]) -> "Runs":
        """Count the runs of a box (H, W) bool."""
        columns = pixels.T.ravel()
        starts = np.flatnonzero(np.diff(columns.astype(np.int8), prepend=0))
        counts = np.diff(np.concatenate([[0], starts, [columns.size]]))
        return cls(tuple(counts.tolist()), corner, (pixels.shape[0], pixels.shape[1]))

    def pixels(self) -> Array:
        """Which pixels are in.  -> (H, W) bool"""
        return np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts).reshape(self.size[::-1]).T


Shape = tuple[str, Outline | Runs]


@dataclass(frozen=True)
class PolygonPair:
    """An image file with the areas of its classes, later ones on top; what they leave is class 0."""

    name: str
    image: Path
    mask: Path
    """The JSON file."""
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None
    """Height and width of the image as annotated."""
    classes: tuple[str, ...]

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode the image and draw the mask; raises a UserError where the image has another size than annotated."""
        if self.size is None:  # the polygons are drawn at the image's own size
            decoding = replace(decoding, enough=None)
        image = read_image(self.image, decoding)
        height, width = self.size or image.shape[:2]
        drawn = draw(self.shapes, self.classes, (height, width))
        check_sizes(image, drawn, self, decoding)
        return image, drawn


def draw(shapes: Sequence[Shape], classes: Sequence[str], size: tuple[int, int]) -> Array:
    """Fill areas with their classes, in order.  -> (H, W) uint8"""
    canvas = Image.new("L", (size[1], size[0]), 0)
    pen = ImageDraw.Draw(canvas)
    for label, area in shapes:
        if isinstance(area, Runs):
            pen.bitmap(area.corner, Image.fromarray(area.pixels().astype(np.uint8) * 255), fill=classes.index(label))
        else:
            pen.polygon(area, fill=classes.index(label))
    return np.asarray(canvas)


def read_shapes(path: Path) -> tuple[tuple[Shape, ...], tuple[int, int] | None]:
    """Areas and image size of a labelme or Cityscapes file; rectangles and circles become polygons.

    Raises a UserError that names the file and the shape at fault.
    """
    values = read_json(path)
    rows = values.get("shapes", values.get("objects")) if isinstance(values, dict) else None
    if not isinstance(rows, list):
        raise UserError(f'{path}: expected labelme ("shapes") or Cityscapes ("objects") JSON')
    height, width = (values.get(f"image{s}", values.get(f"img{s}")) for s in ("Height", "Width"))
    shapes = [_shape(row, f"{path}, shape {number}") for number, row in enumerate(rows)]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
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
            f"{where}: expected a shape_type of {', '.join(AREAS + NO_AREAS)}, got {kind!r}; draw it as one"
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
    return (label, points) if len(points) >= 3 else None  # one or two points cover nothing


def _circle(points: Outline, where: str) -> Outline:
    if len(points) != 2:
        raise UserError(f"{where}: expected the centre of a circle and a point on it, got {len(points)} points")
    (x, y), (u, v) = points
    angles, radius = np.linspace(0, 2 * np.pi, 64, endpoint=False), np.hypot(u - x, v - y)
    return tuple((x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles)


def _bitmap(text: Any, points: Outline, where: str) -> Runs:
    """What labelme's AI tools draw: a PNG in base64, from the first of two corners on."""
    try:
        (left, top), (right, bottom) = ((round(x), round(y)) for x, y in points)
        data = base64.b64decode(text)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: expected two corners and a mask (PNG in base64); draw it again") from error
    pixels = index_mask(decode(BytesIO(data), where), where) > 0
    height, width = bottom - top + 1, right - left + 1
    if max(abs(pixels.shape[0] - height), abs(pixels.shape[1] - width)) > 1:  # labelme's may be cut at the image's rim
        raise UserError(
            f"{where}: expected a mask of {height} x {width} (height x width) between its corners, got "
            f"{pixels.shape[0]} x {pixels.shape[1]}; draw it again"
        )
    return Runs.of(pixels, (left, top))


def read_coco(path: Path, values: Any, images: Path) -> tuple[list[PolygonPair], tuple[str, ...]]:
    """Images of a COCO instances file, parsed, with their areas, and its classes after the background.

    Categories of the same name are one class.  Raises a UserError for an image that is not there, a UserError
    that names the file and the image, category or annotation at fault.
    """
    categories, pictures = _by_id(values, "category", path), _by_id(values, "image", path)
    names = {key: str(_value(row, "name", (str, int), path, "category")) for key, row in categories.items()}
    ordered = [names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))]
    classes = (BACKGROUND, *dict.fromkeys(name for name in ordered if name != BACKGROUND))
    sizes = {key: _size(row, path) for key, row in pictures.items()}
    shapes: dict[Any, list[Shape]] = {key: [] for key in pictures}
    annotations = _rows(values, "annotation", path)
    for row in sorted(annotations, key=lambda row: -_area(row, path)):  # small ones on top
        image, category = _reference(row, "image", pictures, path), _reference(row, "category", names, path)
        shapes[image] += [(names[category], area) for area in _areas(row, sizes[image], path)]
    if annotations and not any(shapes.values()):
        raise UserError(f'{path}: expected polygons in "segmentation", got none in any annotation; export them too')
    pairs = []
    for key, row in pictures.items():
        file, name = _image(row, images, path), Path(row["file_name"]).with_suffix("").as_posix()
        pairs.append(PolygonPair(name, file, path, tuple(shapes[key]), sizes[key], classes))
    return pairs, classes


def is_coco(values: Any) -> bool:
    """Whether parsed JSON is of COCO's kind."""
    return isinstance(values, dict) and set(PARTS.values()) <= values.keys()


def has_areas(values: Any) -> bool:
    """Whether an annotation of a COCO file, parsed, has polygons or run lengths."""
    rows = values["annotations"] if is_coco(values) else None
    return isinstance(rows, list) and any(isinstance(row, dict) and row.get("segmentation") for row in rows)


def _rows(values: Any, kind: str, path: Path) -> list[dict[str, Any]]:
    rows = values.get(PARTS[kind]) if isinstance(values, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f'{path}: expected COCO\'s "{PARTS[kind]}", a list of objects; export it as COCO instances')
    return rows


def _by_id(values: Any, kind: str, path: Path) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for row in _rows(values, kind, path):
        key = _value(row, "id", (int, float, str), path, kind)
        if key in found:
            raise UserError(f"{path}, {kind} {key}: expected an id of its own, got it twice; number them anew")
        found[key] = row
    return found


def _reference(row: Mapping[str, Any], kind: str, known: Mapping[Any, Any], path: Path) -> Any:
    key = _value(row, f"{kind}_id", (int, float, str), path, "annotation")
    if key not in known:
        raise _fault(path, "annotation", row, f'"{kind}_id" to be an id in "{PARTS[kind]}"', key)
    return key


def _value(row: Mapping[str, Any], key: str, kinds: tuple[type, ...], path: Path, kind: str) -> Any:
    value = row.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = " or ".join(each.__name__ for each in kinds)
        raise _fault(path, kind, row, f'"{key}" of type {names}', value)
    return value


def _fault(path: Path, kind: str, row: Mapping[str, Any], expected: str, got: object) -> UserError:
    return UserError(
        f"{path}, {kind} {row.get('id', 'without id')}: expected {expected}, got {got!r:.60}; correct or remove it"
    )


def _size(row: Mapping[str, Any], path: Path) -> tuple[int, int]:
    height, width = (_value(row, side, (int,), path, "image") for side in ("height", "width"))
    if min(height, width) < 1:
        raise _fault(path, "image", row, '"height" and "width" above 0', (height, width))
    return height, width


def _image(row: Mapping[str, Any], images: Path, path: Path) -> Path:
    name = _value(row, "file_name", (str,), path, "image")
    spellings = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))  # macOS writes NFD
    image = next((images / spelling for spelling in spellings if (images / spelling).is_file()), None)
    if image is None:
        raise UserError(f"{images / name}: named in {path.name}, but not there; add it, or correct the name")
    return image


def _area(row: Mapping[str, Any], path: Path) -> float:
    area: float = row.get("area", 0)
    if not _finite([area]):
        raise _fault(path, "annotation", row, '"area" to be a number', area)
    return area


def _areas(row: Mapping[str, Any], size: tuple[int, int], path: Path) -> list[Outline | Runs]:
    parts = row.get("segmentation")
    if isinstance(parts, dict):
        return [_run_lengths(row, parts, size, path)]
    if not isinstance(parts, list):
        raise _fault(path, "annotation", row, '"segmentation" to hold polygons or run lengths', parts)
    for part in parts:
        if not isinstance(part, list) or len(part) % 2 or not _finite(part):
            raise _fault(path, "annotation", row, "polygons of numbers x, y, x, y, ...", part)
    return [tuple(zip(part[::2], part[1::2], strict=True)) for part in parts if len(part) >= 6]


def _run_lengths(row: Mapping[str, Any], mask: Mapping[str, Any], size: tuple[int, int], path: Path) -> Runs:
    found = mask.get("counts")
    counts: list[Any] = decompress(found) if isinstance(found, str) else found if isinstance(found, list) else []
    whole = set(map(type, counts)) <= {int} and min(counts, default=-1) >= 0
    if mask.get("size") != list(size) or not whole or sum(counts) != size[0] * size[1]:
        raise _fault(path, "annotation", row, f"polygons, or run lengths of {size[0]} x {size[1]} pixels", mask)
    return Runs(tuple(counts), (0, 0), size)


def decompress(text: str) -> list[int]:
    """Run lengths of COCO's compressed form.

    A character holds 5 bits, the lowest first, as 48 plus their value, plus 32 where more follow; the last bit is the
    sign.  From the fourth on, a number is the difference to the last but one.

    >>> decompress("0141N0003")
    [0, 1, 4, 2, 2, 2, 2, 2, 5]
    """
    counts: list[int] = []
    value = shift = 0
    for bits in (ord(character) - 48 for character in text):
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= 1 << shift if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _finite(numbers: Sequence[Any]) -> bool:
    return set(map(type, numbers)) <= {int, float} and -math.inf < sum(numbers) < math.inf
