"""COCO instances files: one JSON file with the labeled areas of all images."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segformer.data.sources.polygons import BACKGROUND, Outline, PolygonPair, Shape
from segformer.data.sources.run_lengths import Runs, decompress
from segformer.errors import UserError

PARTS = {"image": "images", "annotation": "annotations", "category": "categories"}  # keys of a COCO file


def read_coco(path: Path, values: Any, images: Path) -> tuple[list[PolygonPair], tuple[str, ...]]:
    """Return (images with their labeled areas, class names) from the parsed content of a COCO instances file.

    The classes are the background and then the categories; categories of the same name are one class.  Raises a
    UserError that names a missing image, or the file and the wrong image, category or annotation.
    """
    categories = _by_id(values, "category", path)
    pictures = _by_id(values, "image", path)
    names = {key: str(_value(row, "name", (str, int), path, "category")) for key, row in categories.items()}
    ordered = [names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))]
    classes = (BACKGROUND, *dict.fromkeys(name for name in ordered if name != BACKGROUND))
    sizes = {key: _size(row, path) for key, row in pictures.items()}
    shapes: dict[Any, list[Shape]] = {key: [] for key in pictures}
    annotations = _rows(values, "annotation", path)
    for row in sorted(annotations, key=lambda row: -_area(row, path)):  # small areas are drawn last, on top
        image = _reference(row, "image", pictures, path)
        category = _reference(row, "category", names, path)
        shapes[image] += [(names[category], area) for area in _areas(row, sizes[image], path)]
    if annotations and not any(shapes.values()):
        raise UserError(f'{path}: expected polygons in "segmentation", got none in any annotation; export polygons too')
    pairs = []
    for key, row in pictures.items():
        file = _image(row, images, path)
        name = Path(row["file_name"]).with_suffix("").as_posix()
        pairs.append(PolygonPair(name, file, path, tuple(shapes[key]), sizes[key], classes))
    return pairs, classes


def is_coco(values: Any) -> bool:
    """Whether parsed JSON has the keys of a COCO file: images, annotations and categories."""
    return isinstance(values, dict) and set(PARTS.values()) <= values.keys()


def has_areas(values: Any) -> bool:
    """Whether parsed JSON is a COCO file in which at least one annotation has polygons or run lengths."""
    rows = values["annotations"] if is_coco(values) else None
    return isinstance(rows, list) and any(isinstance(row, dict) and row.get("segmentation") for row in rows)


def _rows(values: Any, kind: str, path: Path) -> list[dict[str, Any]]:
    rows = values.get(PARTS[kind]) if isinstance(values, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f'{path}: expected COCO\'s "{PARTS[kind]}", a list of objects; export COCO instances')
    return rows


def _by_id(values: Any, kind: str, path: Path) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for row in _rows(values, kind, path):
        key = _value(row, "id", (int, float, str), path, kind)
        if key in found:
            raise UserError(f"{path}, {kind} {key}: expected a unique id, got it twice; change one of them")
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
        raise UserError(f"{images / name}: this image of {path.name} is missing; add it, or correct its file_name")
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
        raise _fault(path, "annotation", row, '"segmentation" to contain polygons or run lengths', parts)
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


def _finite(numbers: Sequence[Any]) -> bool:
    return set(map(type, numbers)) <= {int, float} and -math.inf < sum(numbers) < math.inf
