"""A page about a model's robustness: comparison with Table 5, scores by severity and by class, and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segformer import report
from segformer.config import EvalConfig, ModelCard
from segformer.data.dataset import DataSource
from segformer.files import write_json
from segformer.inference.predictor import Predictor
from segformer.models.interfaces import Network
from segformer.published import TABLE_5
from segformer.robustness.cells import DRAWN
from segformer.robustness.corruptions import corruption_groups, corruption_names, display_name
from segformer.robustness.pictures import Pictures, PredictionDrawer, picture_rows
from segformer.robustness.result import Robustness
from segformer.robustness.table5 import REPORTED, RULE, one_decimal, table5_row

PAGE = "report.html"
FIGURES = "robustness.json"


def write_results(
    out: Path,
    result: Robustness,
    model: Network,
    source: DataSource,
    split: str,
    *,
    config: EvalConfig | None = None,
    frost: Path | None = None,
) -> Path:
    """Write robustness.json and report.html, with pictures of the model's predictions; return the page's path.

    ``config`` and ``frost`` must be the same as in the call of ``robustness``.
    """
    write_json(out / FIGURES, result.to_json())
    drawer = PredictionDrawer(Predictor(model, config=config), result.setting["seed"], frost)
    rows = picture_rows(result, drawer, source.samples(split))
    html = report.page(
        "Robustness",
        f"{source.name}, {split}: {result.setting['num_images']} images",
        report.section("At a glance", report.facts(key_figures(result))),
        report.section("Comparison with Table 5", *beside_the_paper(result)),
        report.section("mIoU by severity", report.columns(*severity_charts(result))),
        report.section("Retained mIoU", *retained_table(result)),
        report.section("Classes", *class_tables(result, model.card)),
        report.section("Pictures", *picture_section(rows, model.card)),
        report.section("What was measured", report.key_values(setting_texts(result.setting))),
    )
    report.write_page(out / PAGE, html)
    return out / PAGE


def key_figures(result: Robustness) -> dict[str, str]:
    """Return the main scores: clean and corrupted mIoU, retained shares, and the hardest and easiest corruption."""
    shares = {name: result.retained(result.miou(name)) for name in result.corruptions}
    known = {name: share for name, share in shares.items() if np.isfinite(share)}
    extremes = {}
    if known:
        hardest = min(known, key=known.__getitem__)
        easiest = max(known, key=known.__getitem__)
        extremes[f"hardest: {display_name(hardest)}"] = f"{known[hardest]:.0%}"
        extremes[f"easiest: {display_name(easiest)}"] = f"{known[easiest]:.0%}"
    groups = {f"mIoU retained, {group}": result.retained(result.group_miou(group)) for group in corruption_groups()}
    return {
        "mIoU, clean": f"{result.clean.miou:.3f}",
        "mIoU, corrupted": f"{result.corrupted_miou:.3f}",
        "mIoU retained": share_text(result.retained(result.corrupted_miou)),
        **{key: share_text(share) for key, share in groups.items()},
        **extremes,
    }


def share_text(share: float) -> str:
    """Write a share in whole percent; NaN becomes a dash.

    >>> share_text(0.715), share_text(float("nan"))
    ('72%', '-')
    """
    return f"{share:.0%}" if np.isfinite(share) else "-"


def beside_the_paper(result: Robustness) -> list[str]:
    """Return an introduction and two tables, each with the model's row above the paper's rows of Table 5."""
    intro = (
        f"mIoU in %. {RULE} The first row is this model, measured by this command on {result.setting['data']}. All "
        f"other rows are {REPORTED}; only a model measured on the val split of Cityscapes can be compared with them. "
        f"{frost_text(result)}"
    )
    columns = ["clean", *corruption_names()]
    rows: dict[str, Mapping[str, float | None]] = {"this model": table5_row(result), **TABLE_5}
    texts = {label: [one_decimal(figures.get(name)) for name in columns] for label, figures in rows.items()}
    return [report.paragraph(intro), *in_halves(["method", "clean"], texts, columns[1:])]


def in_halves(heads: Sequence[str], rows: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    """Divide a table with a column for each corruption into two tables that fit the page.

    ``heads`` are the headings of the columns before the corruptions; both tables have these columns.
    """
    fixed = len(heads) - 1
    middle = -(-len(names) // 2)
    tables = []
    for part in (slice(0, middle), slice(middle, None)):
        body = [[label, *row[:fixed], *row[fixed:][part]] for label, row in rows.items()]
        tables.append(report.table([*heads, *map(display_name, names[part])], body))
    return tables


def frost_text(result: Robustness) -> str:
    """Return a sentence about the ice of the frost corruption, or "" if frost was not measured."""
    if "frost" not in result.corruptions:
        return ""
    if result.setting["frost"] == DRAWN:
        return "Frost uses drawn ice in place of the photographs of the published corruption."
    return "Frost uses the photographs of the published corruption."


def severity_charts(result: Robustness) -> list[str]:
    """Draw mIoU by severity, one chart for each group of corruptions; severity 0 is the clean images."""
    charts = []
    for group, names in result.groups.items():
        series = {
            display_name(name): [
                (0.0, result.clean.miou),
                *((float(s), result.cells[name, s].miou) for s in result.severities if (name, s) in result.cells),
            ]
            for name in names
        }
        charts.append(report.line_chart(series, x_label=f"{group}: severity, 0 is clean", y_label="mIoU"))
    return charts


def retained_table(result: Robustness) -> list[str]:
    """Return an introduction and a table of the mIoU for each corruption and severity, in % of the clean mIoU."""

    def share(miou: float) -> str:
        return one_decimal(100 * result.retained(miou))

    rows = []
    for name in result.corruptions:
        cells = [result.cells.get((name, severity)) for severity in result.severities]
        by_severity = ["-" if scores is None else share(scores.miou) for scores in cells]
        rows.append([display_name(name), *by_severity, share(result.miou(name))])
    rows.append(["all", *[""] * len(result.severities), share(result.corrupted_miou)])
    heads = ["corruption", *(f"severity {severity}" for severity in result.severities), "mean"]
    intro = f"mIoU on corrupted images in % of the mIoU on clean images, which is {result.clean.miou:.3f}. {RULE}"
    return [report.paragraph(intro), report.table(heads, rows)]


def class_tables(result: Robustness, card: ModelCard) -> list[str]:
    """Return tables that show how much of its clean IoU each class retains: by group as bars, by corruption in %."""
    shares = {name: result.retained_iou(name) for name in result.corruptions}
    by_group = {group: np.mean([shares[name] for name in names], axis=0) for group, names in result.groups.items()}
    classes = result.clean.classes
    texts = {
        label: [one_decimal(100 * float(share[k])) for share in shares.values()] for k, label in enumerate(classes)
    }
    return [
        report.paragraph(f"IoU of each class on corrupted images, as a share of its IoU on clean images. {RULE}"),
        report.class_table(classes, card.palette, {"clean IoU": list(result.clean.iou), **by_group}),
        report.paragraph("The same shares by corruption, in %."),
        *in_halves(["class"], texts, list(shares)),
    ]


def picture_section(rows: list[tuple[str, Pictures]], card: ModelCard) -> list[str]:
    """Return an introduction, the colors of the classes, and the rows of pictures."""
    intro = "Each image is shown above the mask that the model predicts for it."
    return [report.paragraph(intro), report.legend(card.classes, card.palette), report.pictures(rows)]


def setting_texts(setting: Mapping[str, Any]) -> dict[str, str]:
    """Return the entries of a setting as text; the values of a nested entry are joined in one line."""
    return {
        key.replace("_", " "): ", ".join(f"{name} {part}" for name, part in value.items())
        if isinstance(value, Mapping)
        else str(value)
        for key, value in setting.items()
    }
