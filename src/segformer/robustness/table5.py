"""Table 5 of the paper, and the scores of a model in the same form: mIoU in %."""

from dataclasses import dataclass

from segformer.published import TABLE_5
from segformer.robustness.corruptions import CORRUPTIONS, corruption_groups, corruption_names
from segformer.robustness.result import Robustness

OURS = "SegFormer-B5"
REPORTED = "reported by the paper, on Cityscapes-C"
RULE = "Means are over severities 1 to 5, but for noise only over 1 to 3."


@dataclass(frozen=True)
class FigureTable:
    """A table of scores as text; a heading may have two lines."""

    headings: list[str]
    rows: list[list[str]]


def table5() -> FigureTable:
    """Return the paper's rows of Table 5; a corruption that is not in the paper has a column of dashes."""
    headings = ["", "\nClean"]
    for group, names in corruption_groups().items():
        titles = [group.capitalize(), *[""] * (len(names) - 1)]
        headings += [f"{title}\n{CORRUPTIONS[name].heading}" for title, name in zip(titles, names, strict=True)]
    columns = ("clean", *corruption_names())
    return FigureTable(
        headings,
        [[method, *(one_decimal(figures.get(name)) for name in columns)] for method, figures in TABLE_5.items()],
    )


def group_table(result: Robustness, group: str) -> FigureTable:
    """Return a table about a group of corruptions, with a column for each corruption.

    Its rows are the mIoU at each severity, ``miou``, ``miou`` in % of the clean mIoU, and the paper's SegFormer-B5.
    """
    names = result.groups[group]
    rows = []
    for severity in result.severities:
        scores = [result.cells.get((name, severity)) for name in names]
        rows.append([f"severity {severity}", *(one_decimal(None if s is None else 100 * s.miou) for s in scores)])
    means = [result.miou(name) for name in names]
    rows.append(["mean", *(one_decimal(100 * mean) for mean in means)])
    rows.append(["% of clean", *(one_decimal(100 * result.retained(mean)) for mean in means)])
    rows.append([f"{OURS} *", *(one_decimal(TABLE_5[OURS].get(name)) for name in names)])
    return FigureTable([group.capitalize(), *names], rows)


def table5_row(result: Robustness) -> dict[str, float | None]:
    """Return a model's row of Table 5 in %: "clean", then every corruption, None for those not measured."""
    row: dict[str, float | None] = dict.fromkeys(corruption_names())
    row |= {name: 100 * result.miou(name) for name in result.corruptions}
    return {"clean": 100 * result.clean.miou, **row}


def one_decimal(figure: float | None) -> str:
    """Write a score with one decimal; None and NaN become a dash.

    >>> one_decimal(69.1), one_decimal(float("nan")), one_decimal(None)
    ('69.1', '-', '-')
    """
    return "-" if figure is None or figure != figure else f"{figure:.1f}"
