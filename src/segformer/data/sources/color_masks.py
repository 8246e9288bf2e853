"""Masks that show each class in a color, and palette files, which name the class of each color."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Color
from segformer.data.dataset import check_sizes
from segformer.data.decoding import open_image
from segformer.data.images import RGB, Decoding, read_image
from segformer.errors import UserError
from segformer.files import read_json

PALETTE_FILES = ("palette.json", "palette.csv", "palette.txt", "class_dict.csv", "colors.txt", "classes.csv")
VOID = {"void", "ignore", "ignored", "unlabeled", "unlabelled", "unlabeled/void"}


@dataclass(frozen=True)
class ColorPair:
    """An image file and a color mask; ``colors`` has the color of each class, and ``void`` the colors to ignore."""

    name: str
    image: Path
    mask: Path
    colors: tuple[Color, ...]
    void: tuple[Color, ...] = ()

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image and the class indices; raises a UserError that names the mask if it has an unknown color."""
        image = read_image(self.image, decoding)
        picture = np.asarray(open_image(self.mask).convert("RGB"))
        check_sizes(image, picture[:, :, 0], self, decoding)
        return image, classes_of(picture, self.colors, self.void, self.mask)


def classes_of(picture: Array, colors: Sequence[Color], void: Sequence[Color], name: object) -> Array:
    """Class index of each pixel, given its color; IGNORE_INDEX for void colors.  (H, W, 3) uint8 -> (H, W) uint8"""
    known = np.array([_packed(color) for color in (*colors, *void)], dtype=np.int32)
    classes = np.array([*range(len(colors)), *[IGNORE_INDEX] * len(void)], dtype=np.uint8)
    order = np.argsort(known)
    pixels = picture.astype(np.int32) @ np.array([65_536, 256, 1], dtype=np.int32)
    indices = np.searchsorted(known[order], pixels).clip(max=len(known) - 1)
    wrong = known[order][indices] != pixels
    if wrong.any():
        first = int(pixels[wrong][0])
        color = (first >> 16, first >> 8 & 255, first & 255)
        raise UserError(
            f"{name}: expected only colors of the palette, got others in {int(wrong.sum())} pixels, such as {color}; "
            f"add them to the palette as classes or as void, or, if the mask was saved as JPEG, export it as PNG"
        )
    return np.asarray(classes[order][indices])


def find_palette(folder: Path) -> Path | None:
    """Return the path of the first palette file that a folder contains, or None."""
    return next((folder / name for name in PALETTE_FILES if (folder / name).is_file()), None)


def read_palette(path: Path) -> tuple[tuple[str, ...], tuple[Color, ...], tuple[Color, ...]]:
    """Return (class names, their colors, colors to ignore) from a palette file.

    The file is JSON {"road": [128, 64, 128], ...} or text with one class per line: a name before or after three
    numbers, separated by commas, semicolons, tabs or spaces.  The text may begin with a heading.  Colors named void,
    ignore or unlabeled are ignored.  Raises a UserError that names the file and the wrong line.
    """
    rows = _json_rows(path) if path.suffix == ".json" else _text_rows(path)
    named = {name: color for name, color in rows if name.lower() not in VOID}
    if not named:
        raise UserError(f"{path}: expected lines of a name and a color, found none")
    return tuple(named), tuple(named.values()), tuple(color for name, color in rows if name.lower() in VOID)


def _json_rows(path: Path) -> list[tuple[str, Color]]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f'{path}: expected an object {{"name": [red, green, blue], ...}}')
    return [(str(name), _color(color, path, name)) for name, color in values.items()]


def _text_rows(path: Path) -> list[tuple[str, Color]]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected text in UTF-8, got other bytes ({error}); save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        fields = _fields(line)
        digits = [field for field in fields if field.isdigit()]
        words = [field for field in fields if field and not field.isdigit()]
        if not line.strip(",; \t") or line.startswith("#") or (number == 1 and not digits):
            continue
        if len(digits) < 3 or not words:
            raise UserError(f"{path}, line {number}: expected a name and three numbers from 0 to 255, got '{line}'")
        rows.append((" ".join(words), _color([int(digit) for digit in digits[-3:]], path, number)))
    return rows


def _fields(line: str) -> list[str]:
    """Split a line at the separator that yields at least three numbers, or else at the one that yields the most."""
    cuts = [[field.strip() for row in csv.reader([line], delimiter=mark) for field in row] for mark in ",;\t"]
    return max([*cuts, line.split()], key=lambda fields: min(sum(field.isdigit() for field in fields), 3))


def _color(values: Any, path: Path, where: object) -> Color:
    if not isinstance(values, list) or len(values) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in values):
        raise UserError(f"{path}, {where}: expected three numbers from 0 to 255, got {values!r}")
    return values[0], values[1], values[2]


def _packed(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
