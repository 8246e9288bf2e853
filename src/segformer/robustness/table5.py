"""Table 5, the paper's rows on Cityscapes-C, and how a model's own figures are shown in a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from segformer.robustness.cells import Robustness

Figures = tuple[float | None, ...]

# The corruptions in the table's order, with its headings.
HEADINGS: dict[str, dict[str, str]] = {
    "blur": {"motion_blur": "Motion", "defocus_blur": "Defoc", "glass_blur": "Glass", "gaussian_blur": "Gauss"},
    "noise": {"gaussian_noise": "Gauss", "impulse_noise": "Impul", "shot_noise": "Shot", "speckle_noise": "Speck"},
    "digital": {"brightness": "Bright", "contrast": "Contr", "saturate": "Satur", "jpeg_compression": "JPEG"},
    "weather": {"snow": "Snow", "spatter": "Spatt", "fog": "Fog", "frost": "Frost"},
}
# mIoU in %, as printed: clean, then a figure for each corruption.
TABLE_5: dict[str, Figures] = {
    name: tuple(map(float, row.split()))
    for name, row in (
        ("DLv3+ (MBv2)", "72.0 53.5 49.0 45.3 49.1 6.4 7.0 6.6 16.6 51.7 46.7 32.4 27.2 13.7 38.9 47.4 17.3"),
        ("DLv3+ (R50)", "76.6 58.5 56.6 47.2 57.7 6.5 7.2 10.0 31.1 58.2 54.7 41.3 27.4 12.0 42.0 55.9 22.8"),
        ("DLv3+ (R101)", "77.1 59.1 56.3 47.7 57.3 13.2 13.9 16.3 36.9 59.2 54.5 41.5 37.4 11.9 47.8 55.1 22.7"),
        ("DLv3+ (X41)", "77.8 61.6 54.9 51.0 54.7 17.0 17.3 21.6 43.7 63.6 56.9 51.7 38.5 18.2 46.6 57.6 20.6"),
        ("DLv3+ (X65)", "78.4 63.9 59.1 52.8 59.2 15.0 10.6 19.8 42.4 65.9 59.1 46.1 31.4 19.3 50.7 63.6 23.8"),
        ("DLv3+ (X71)", "78.6 64.1 60.9 52.0 60.4 14.9 10.8 19.4 41.2 68.0 58.7 47.1 40.2 18.8 50.4 64.1 20.2"),
        ("ICNet", "65.9 45.8 44.6 47.4 44.7 8.4 8.4 10.6 27.9 41.0 33.1 27.5 34.0 6.3 30.5 27.3 11.0"),
        ("FCN8s", "66.7 42.7 31.1 37.0 34.1 6.7 5.7 7.8 24.9 53.3 39.0 36.0 21.2 11.3 31.6 37.6 19.7"),
        ("DilatedNet", "68.6 44.4 36.3 32.5 38.4 15.6 14.0 18.4 32.7 52.7 32.6 38.1 29.1 12.5 32.3 34.7 19.2"),
        ("ResNet-38", "77.5 54.6 45.1 43.3 47.2 13.7 16.0 18.2 38.3 60.0 50.6 46.9 14.7 13.5 45.9 52.9 22.2"),
        ("PSPNet", "78.8 59.8 53.2 44.4 53.9 11.0 15.4 15.4 34.2 60.4 51.8 30.6 21.4 8.4 42.7 34.4 16.2"),
        ("GSCNN", "80.9 58.9 58.4 41.9 60.1 5.5 2.6 6.8 24.7 75.9 61.9 70.7 12.0 12.4 47.3 67.9 32.6"),
        ("SETR-DeiT", "78.9 64.9 65.1 59.1 65.3 54.7 60.5 51.9 69.4 74.9 69.6 74.9 58.5 44.3 64.8 68.2 39.1"),
        ("SegFormer-B5", "82.4 69.1 68.6 64.1 69.8 57.8 63.4 52.3 72.8 81.0 77.7 80.1 58.8 40.7 68.4 78.5 49.9"),
    )
}
OURS = "SegFormer-B5"
REPORTED = "reported by the paper, on Cityscapes-C"
MEASURE = "To measure: segformer robustness MODEL --data cityscapes=ROOT"
RULE = "Mean over severities 1 to 5, for the four noises 1 to 3."


def percent(figure: float | None) -> str:
    """Write a figure in %, one digit after the point, or a dash.

    >>> percent(69.1), percent(float("nan")), percent(None)
    ('69.1', '-', '-')
    """
    return "-" if figure is None or figure != figure else f"{figure:.1f}"


def figures_of(result: "Robustness") -> Figures:
    """Return a model's row of Table 5, in %; None for a corruption that was not measured."""
    names = [name for headings in HEADINGS.values() for name in headings]
    measured = [100 * result.miou(name) if name in result.corruptions else None for name in names]
    return (100 * result.clean.miou, *measured)


def table5() -> "RenderableType":
    """Show the paper's rows, in two halves that fit a narrow terminal."""
    from rich.box import HORIZONTALS
    from rich.console import Group
    from rich.table import Table

    groups, halves = list(HEADINGS), []
    for half in (0, 1):
        table = Table("", box=HORIZONTALS, padding=0)
        table.add_column("\nClean", justify="right")
        for group in groups[2 * half : 2 * half + 2]:
            for i, heading in enumerate(HEADINGS[group].values()):
                table.add_column(f"{'' if i else group.capitalize()}\n{heading}", justify="right")
        for name, (clean, *figures) in TABLE_5.items():
            table.add_row(name, percent(clean), *map(percent, figures[8 * half : 8 * half + 8]))
        halves.append(table)
    return Group(f"Table 5: mIoU in %, {REPORTED}", *halves, RULE, MEASURE)


def print_robustness(result: "Robustness", title: str) -> None:
    """Show a model's figures: a table a group, severities downwards, the paper's SegFormer-B5 for comparison."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"{title}: mIoU in %; {RULE[0].lower()}{RULE[1:]}")
    for group in HEADINGS:
        if any(name in result.corruptions for name in HEADINGS[group]):
            console.print(group_table(result, group))
    console.print(f"* {REPORTED}. Frost: {result.setting['frost']}.")


def group_table(result: "Robustness", group: str) -> "Table":
    """Severities, mean and share of the clean mIoU of the corruptions of a group."""
    from rich.table import Table

    names = [name for name in HEADINGS[group] if name in result.corruptions]
    table = Table(group.capitalize(), *names, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for severity in result.severities:
        scores = [result.cells.get((name, severity)) for name in names]
        table.add_row(f"severity {severity}", *(percent(None if s is None else 100 * s.miou) for s in scores))
    table.add_section()
    table.add_row("mean", *(percent(100 * result.miou(name)) for name in names))
    table.add_row("of clean, %", *(percent(100 * result.retained(result.miou(name))) for name in names))
    order = [name for headings in HEADINGS.values() for name in headings]
    table.add_row(f"{OURS} *", *(percent(TABLE_5[OURS][1 + order.index(name)]) for name in names))
    return table
