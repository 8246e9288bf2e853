"""``segformer reproduce``: print the paper's tables next to our own counts of parameters and Flops."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.parsing import call
from segformer.cli.table import print_paragraph, print_table
from segformer.paper.tables import (
    ADE20K_CLASSES,
    CITYSCAPES_CLASSES,
    COUNTED_TABLES,
    CROP,
    STREET,
    PaperTable,
    Row,
    savings,
)
from segformer.validation import OneOf, check_choice


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(reproduce, arguments)


def reproduce(
    table: Annotated[Positional[str], arg(metavar="TABLE", help="Table to print."), OneOf("cli.reproduce.PRINTERS")],
    /,
) -> None:
    """Print a table of the paper next to our own counts, and say how to measure the columns that need data."""
    check_choice("TABLE", table, PRINTERS)
    PRINTERS[table]()


def print_counted_table(name: str) -> None:
    """Print a table with up to three lines for each row: the paper's values, our counts, and their difference."""
    table = COUNTED_TABLES[name]()
    hints = list(dict.fromkeys(hint for _, hint in table.columns if hint))
    marks = {hint: f"({letter})" for hint, letter in zip(hints, "abc", strict=False)}
    column_marks = [marks[hint] if hint else "" for _, hint in table.columns]
    print_paragraph(f"{table.title}; parameters in M, Flops in G")
    print()
    print_table(
        ["", "", *(heading for heading, _ in table.columns)],
        [line for row in table.rows for line in row_lines(row, column_marks)],
        num_labels=2,
    )
    print()
    print_notes(table, marks)


def print_notes(table: PaperTable, marks: dict[str, str]) -> None:
    """Print the notes below a table."""
    for note in table.notes:
        print_paragraph(note)
    if any(row.counted is None for row in table.rows):
        print_paragraph("* This model is not in this package yet.")
    for hint, mark in marks.items():
        print_paragraph(f"{mark} {hint}")


def row_lines(row: Row, marks: Sequence[str]) -> list[list[str]]:
    """Return the lines of a row; ``marks`` has one mark per column, which refers to the note on how to measure it."""
    if row.counted is None:
        return [[row.name, "paper *", *row.paper]]
    columns = [compare(*column) for column in zip(row.paper, row.counted, marks, strict=True)]
    paper, counted, difference = zip(*columns, strict=True)
    return [[row.name, "paper", *paper], ["", "counted", *counted], ["", "difference", *difference]]


def compare(paper: str, counted: float | None, mark: str) -> tuple[str, str, str]:
    """Return three cells: the paper's value, our count and the difference.

    Without a count, the second cell is ``mark``, which refers to the note on how to measure the value.  If the paper
    has no value, the second and third cells are empty.

    >>> compare("8.4", 8.388, ""), compare("37.4", None, "(a)"), compare("-", 8.388, "")
    (('8.4', '8.39', '-0.01'), ('37.4', '(a)', ''), ('-', '', ''))
    """
    if paper in ("", "-"):
        return paper, "", ""
    return (paper, mark, "") if counted is None else (paper, f"{counted:.2f}", f"{counted - float(paper):+z.2f}")


def print_table5() -> None:
    """Print the paper's mIoU on corrupted images, and how to measure it for a model."""
    from segformer.robustness.table5 import REPORTED, RULE, table5

    table = table5()
    print_paragraph(f"Table 5: mIoU in %, {REPORTED}")
    print()
    print_table(table.headings, table.rows, num_labels=2)
    print()
    print_paragraph(RULE)
    print_paragraph("To measure a model: segformer robustness MODEL --data cityscapes=ROOT")


def print_savings() -> None:
    """Print how much of a model's arithmetic the merged decoder saves."""
    print_paragraph("Multiply-accumulates of the whole model, in G: with Equation 4 as printed, and as computed here")
    for size, num_classes in ((CROP, ADE20K_CLASSES), (STREET, CITYSCAPES_CLASSES)):
        rows = [
            [saving.encoder, f"{saving.literal:.1f}", f"{saving.computed:.1f}", f"{100 * saving.share_removed:.0f} %"]
            for saving in savings(size, num_classes)
        ]
        title = f"\n{size[0]} x {size[1]}, {num_classes} classes"
        print_table(["encoder", "Equation 4", "computed", "removed"], rows, title=title)
    print()
    print_paragraph("The parameters are the same, and the logits differ only by rounding.")


PRINTERS: dict[str, Callable[[], None]] = {
    **{name: partial(print_counted_table, name) for name in COUNTED_TABLES},
    "table5": print_table5,
    "savings": print_savings,
}
