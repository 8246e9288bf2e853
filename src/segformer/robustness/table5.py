"""Table 5 as text, and a model's own figures in the same form; no line is wider than 80 characters."""

from collections.abc import Mapping, Sequence

from segformer.published import TABLE_5
from segformer.robustness.corruptions import CORRUPTIONS, corruption_groups, corruption_names
from segformer.robustness.result import Robustness

Block = list[str]
"""Part of a table: lines of equal width."""

WIDTH = 80  # characters
OURS = "SegFormer-B5"
REPORTED = "reported by the paper, on Cityscapes-C"
MEASURE = "To measure a model: segformer robustness MODEL --data cityscapes=ROOT"
RULE = "Means are over severities 1 to 5, for noise over 1 to 3."


def table5() -> str:
    """Return the paper's rows."""
    clean = text_block("", {"Clean": [one_decimal(figures["clean"]) for figures in TABLE_5.values()]})
    names = text_block("", {"": list(TABLE_5)}, align="<")
    groups = []
    for group, members in corruption_groups().items():
        columns = {name: [one_decimal(figures.get(name)) for figures in TABLE_5.values()] for name in members}
        groups.append(text_block(group.capitalize(), columns, headings=[CORRUPTIONS[name].heading for name in members]))
    tables = pack([names, clean], groups)
    return "\n\n".join([f"Table 5: mIoU in %, {REPORTED}", *tables, f"{RULE}\n{MEASURE}"])


def robustness_text(result: Robustness, title: str) -> str:
    """Return a model's figures: a table for each group, with a row for each severity and one of the paper."""
    tables = [group_table(group, names, result) for group, names in result.groups.items()]
    note = f"* {REPORTED}. Frost: {result.setting['frost']}."
    return "\n\n".join([f"{title}\nmIoU in %. {RULE}", *tables, note])


def group_table(group: str, names: Sequence[str], result: Robustness) -> str:
    """Return mIoU over severities, its mean, its share of the clean mIoU and the paper's figure."""
    rows = [*(f"severity {severity}" for severity in result.severities), "mean", "% of clean", f"{OURS} *"]
    columns = {}
    for name in names:
        cells = [result.cells.get((name, severity)) for severity in result.severities]
        figures = [None if scores is None else 100 * scores.miou for scores in cells]
        mean = result.miou(name)
        columns[name] = [*figures, 100 * mean, 100 * result.retained(mean), TABLE_5[OURS].get(name)]
    blocks = [text_block("", {name: list(map(one_decimal, column))}) for name, column in columns.items()]
    return "\n".join(pack([text_block("", {group.capitalize(): rows}, align="<")], blocks))


def table5_row(result: Robustness) -> dict[str, float | None]:
    """Return a model's row of Table 5 in %: "clean", then every corruption; None for one that was not measured."""
    row: dict[str, float | None] = dict.fromkeys(corruption_names())
    row |= {name: 100 * result.miou(name) for name in result.corruptions}
    return {"clean": 100 * result.clean.miou, **row}


def one_decimal(figure: float | None) -> str:
    """Write a figure with one decimal; a dash stands for a missing one.

    >>> one_decimal(69.1), one_decimal(float("nan")), one_decimal(None)
    ('69.1', '-', '-')
    """
    return "-" if figure is None or figure != figure else f"{figure:.1f}"


def text_block(
    title: str, columns: Mapping[str, Sequence[str]], *, headings: Sequence[str] | None = None, align: str = ">"
) -> Block:
    """Set columns below their headings, a title above them and a rule between.

    ``headings`` defaults to the names of the columns; ``align`` is < for left or > for right.

    >>> text_block("Noise", {"shot": ["9.0"], "speckle": ["12.5"]})
    ['Noise        ', 'shot  speckle', '-------------', ' 9.0     12.5']
    """
    texts = [[heading, *cells] for heading, cells in zip(headings or list(columns), columns.values(), strict=True)]
    widths = [max(map(len, column)) for column in texts]
    padded = [[f"{text:{align}{width}}" for text in column] for column, width in zip(texts, widths, strict=True)]
    heading, *rows = ("  ".join(line) for line in zip(*padded, strict=True))
    width = max(len(heading), len(title))
    return [f"{title:<{width}}", *(f"{line:<{width}}" for line in (heading, "-" * width, *rows))]


def pack(first: Sequence[Block], blocks: Sequence[Block]) -> list[str]:
    """Set blocks side by side in as few tables as their width allows; each table begins with the ``first`` blocks."""
    tables = [list(first)]
    for block in blocks:
        if len(tables[-1]) > len(first) and sum(len(b[0]) + 2 for b in [*tables[-1], block]) - 2 > WIDTH:
            tables.append(list(first))
        tables[-1].append(block)
    lines = [["  ".join(parts).rstrip() for parts in zip(*table, strict=True)] for table in tables]
    return ["\n".join(table).lstrip("\n") for table in lines]
