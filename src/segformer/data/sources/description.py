"""Classes of a generic folder, either described in dataset.json or counted in the masks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Color, default_palette
from segformer.data.label_table import MAX_CLASSES, LabelTable
from segformer.errors import UserError
from segformer.files import read_json

DESCRIPTION = "dataset.json"
MAX_ID = 65_535

Classes = tuple[tuple[str, ...], tuple[Color, ...], LabelTable]
"""Class names, palette and label table."""


def read_description(path: Path) -> Classes:
    """Return (class names, palette, label table) of a dataset.json; raises a UserError that names the wrong field."""
    values = read_json(path)
    classes = values.get("classes") if isinstance(values, dict) else None
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f'{path}: expected "classes", a list of names')
    if len(classes) > MAX_CLASSES:
        raise UserError(f"{path}: expected at most {MAX_CLASSES} classes, got {len(classes)}; merge some")
    palette = values.get("palette", default_palette(len(classes)))
    if not isinstance(palette, list | tuple) or len(palette) != len(classes) or not all(map(_is_color, palette)):
        raise UserError(f'{path}: expected "palette" to contain {len(classes)} colors [red, green, blue] from 0 to 255')
    ignore = values.get("ignore_index", IGNORE_INDEX)
    if type(ignore) is not int or not 0 <= ignore <= MAX_ID:
        raise UserError(f'{path}: expected "ignore_index" to be an id from 0 to {MAX_ID}, got {ignore!r}')
    return tuple(classes), tuple(tuple(color) for color in palette), LabelTable.identity(len(classes), ignore)


def unnamed_classes(count: int) -> Classes:
    """Classes named class_0, class_1, ... with the default palette; the raw ids in the masks are the class indices."""
    return tuple(f"class_{k}" for k in range(count)), default_palette(count), LabelTable.identity(count)


def count_classes(masks: Iterable[tuple[object, Array]]) -> int:
    """Number of classes in masks: one more than the highest id other than 255.  Each mask is (name, ids (H, W)).

    Raises a UserError if an id is too high, or if there are fewer than two classes.
    """
    highest = 0
    name: object = None
    for name, mask in masks:
        ids = np.unique(mask)
        ids = ids[ids != IGNORE_INDEX]
        if len(ids) and ids[-1] >= MAX_CLASSES:
            raise UserError(f"{name}: expected labels 0-{MAX_CLASSES - 1} or {IGNORE_INDEX} (ignored), got {ids[-1]}")
        highest = max(highest, int(ids[-1]) if len(ids) else 0)
    if highest == 0:
        raise UserError(
            f"{name}: expected at least two classes in the masks, found only 0 and {IGNORE_INDEX}, which is "
            f"ignored; save the masks with the ids 0 and 1"
        )
    return highest + 1


def _is_color(color: Any) -> bool:
    return isinstance(color, list | tuple) and len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color)
