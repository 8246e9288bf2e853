"""HTML tables: general tables, scores of classes, and confusion matrices."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from segformer.arrays import Array
from segformer.config import Color
from segformer.report.html import css_color, paragraph, swatch

MAX_NUMBERED = 30  # a confusion matrix with more classes has no numbers in its cells
MAX_CONFUSED = 60  # a confusion matrix with more classes is not drawn


def table(headers: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """Return an HTML table.  Columns without text are right-aligned; None and NaN are shown as a dash."""
    textual = [any(isinstance(row[i], str) for row in rows) for i in range(len(headers))]
    kinds = ["" if is_text else ' class="number"' for is_text in textual]
    head = "".join(f"<th{kind}>{escape(header)}</th>" for kind, header in zip(kinds, headers, strict=True))
    body = [[f"<td{kind}>{_cell(value)}</td>" for kind, value in zip(kinds, row, strict=True)] for row in rows]
    return _table(head, ["".join(cells) for cells in body])


def class_table(classes: Sequence[str], palette: Sequence[Color], columns: Mapping[str, Sequence[float]]) -> str:
    """Return an HTML table with one row per class.  Scores (0 to 1) are shown as a bar and a number, NaN as a dash."""
    head = "<th>class</th>" + "".join(f'<th class="number">{escape(name)}</th>' for name in columns)
    body = [
        f'<td class="name">{swatch(css_color(color))}{escape(name)}</td>' + "".join(_score(score) for score in scores)
        for name, color, *scores in zip(classes, palette, *columns.values(), strict=True)
    ]
    return _table(head, body)


def confusion(counts: Array, classes: Sequence[str]) -> str:
    """Return a confusion matrix of pixel counts as an HTML table: rows are labels, columns are predictions.  (K, K)

    The color and the number of a cell show its share of the row's pixels.  With more than 30 classes, the numbers are
    left out; with more than 60, the result is a sentence instead of the table.
    """
    if len(classes) > MAX_CONFUSED:
        return paragraph(
            f"The confusion matrix of {len(classes)} classes is left out, because it would be too large to read."
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in classes)
    body = [
        f'<th scope="row" title="{escape(label)}">{escape(label)}</th>'
        + "".join(_confused(label, name, share, len(classes)) for name, share in zip(classes, row, strict=True))
        for label, row in zip(classes, shares.tolist(), strict=True)
    ]
    kind = "confusion" if len(classes) <= MAX_NUMBERED else "confusion dense"
    intro = paragraph("Each row shows, in percent, as which classes the pixels of one label are predicted.")
    return f'{intro}<div class="{kind}">{_table("<td></td>" + head, body)}</div>'


def _table(head: str, body: Sequence[str]) -> str:
    rows = "".join(f"<tr>{row}</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return escape(value)
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.2e}"


def _score(value: float) -> str:
    bar = "" if math.isnan(value) else f'<span class="bar"><i style="width:{value:.1%}"></i></span>'
    return f'<td class="number">{bar}{_cell(float(value))}</td>'


def _confused(label: str, name: str, share: float, num_classes: int) -> str:
    """Return one HTML cell of the confusion matrix; it is blank if its percentage rounds to 0."""
    kinds = ["own"] * (label == name) + ["strong"] * (share > 0.7)
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    if share < 0.005:
        return f"<td{kind}></td>"
    number = f"{100 * share:.0f}" if num_classes <= MAX_NUMBERED else ""
    title = escape(f"{label}, predicted as {name}: {100 * share:.1f} %")
    return f'<td{kind} style="--share:{share:.2f}" title="{title}">{number}</td>'
