"""Tables as aligned plain text.  On a terminal they fit its width; elsewhere they are never wrapped or divided."""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

GAP = "  "
MIN_TEXT = 20  # characters; a narrower last column is not worth wrapping
FIGURE = re.compile(r"([-+<>~]?[\d.,]+( ?%)?( .*)?|\([a-z]\)|-|)")


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", num_labels: int = 1, indent: int = 0
) -> None:
    """Print a table; one that is too wide for the terminal is divided into several tables.

    Each of these starts with the first ``num_labels`` columns.  Columns of numbers are aligned at the right.  A
    heading may have several lines.  ``headings`` may be empty.
    """
    if title:
        print(title)
    for line in format_table(headings, rows, width=available_width(), num_labels=num_labels):
        print(" " * indent + line)


def print_paragraph(text: str) -> None:
    """Print a text, wrapped to the width of the terminal."""
    width = available_width()
    print(text if width is None else textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))


def available_width() -> int | None:
    """Return the width of the terminal, or None if standard output is not a terminal and COLUMNS is not set."""
    if "COLUMNS" in os.environ or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def format_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, num_labels: int = 1
) -> list[str]:
    r"""Return the lines of a table.

    If the table is wider than ``width``, its last column is wrapped if it contains text.  Otherwise the columns are
    divided into several tables, one below the other; each starts with the first ``num_labels`` columns.

    >>> print("\n".join(format_table(["class", "IoU"], [["road", "97.1"], ["sky", "5.0"]])))
    class   IoU
    road   97.1
    sky     5.0
    """
    columns = list(zip(*([headings, *rows] if headings else rows), strict=True))
    num_headings = 1 if headings else 0
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    right = [i >= num_labels and all(map(FIGURE.fullmatch, column[num_headings:])) for i, column in enumerate(columns)]
    if width is None or _total(widths) <= width:
        return _lines(columns, widths, right)
    rest = width - _total(widths[:-1]) - len(GAP)
    if not right[-1] and rest >= MIN_TEXT:
        wrapped = ["\n".join(textwrap.wrap(cell, rest, break_on_hyphens=False)) for cell in columns[-1]]
        return _lines([*columns[:-1], wrapped], [*widths[:-1], rest], right)
    lines: list[str] = []
    for part in _balanced_parts(widths, width, num_labels):
        lines += ["", *_lines([columns[i] for i in part], [widths[i] for i in part], [right[i] for i in part])]
    return lines[1:]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * max(len(widths) - 1, 0)


def _balanced_parts(widths: Sequence[int], width: int, num_labels: int) -> list[list[int]]:
    """Divide the columns into as few parts as the width allows; the parts are about equally wide."""
    fewest = len(_parts(widths, width, num_labels))
    return next(parts for w in range(width + 1) if len(parts := _parts(widths, w, num_labels)) == fewest)


def _parts(widths: Sequence[int], width: int, num_labels: int) -> list[list[int]]:
    """Divide the columns into parts that fit the width; each part starts with the label columns."""
    labels = list(range(num_labels))
    parts = [list(labels)]
    for i in range(num_labels, len(widths)):
        if len(parts[-1]) > num_labels and _total([widths[k] for k in [*parts[-1], i]]) > width:
            parts.append(list(labels))
        parts[-1].append(i)
    return parts


def _lines(columns: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    """Return the lines of a table with aligned cells; a row has as many lines as its cell with the most lines."""
    lines = []
    for row in zip(*columns, strict=True):
        cells = [cell.split("\n") for cell in row]
        for k in range(max(map(len, cells))):
            texts = [cell[k] if k < len(cell) else "" for cell in cells]
            aligned = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True)]
            lines.append(GAP.join(aligned).rstrip())
    return lines
