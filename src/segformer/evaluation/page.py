"""A page about an examination: figures and how sure they are, classes, confusions, calibration, the worst images."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segformer.config import EvalConfig, ModelCard
from segformer.data.dataset import DataSource
from segformer.evaluation.calibration import Calibration
from segformer.evaluation.examination import Examination
from segformer.evaluation.statistics import Comparison, mean_of
from segformer.models.segmenter import Segmenter
from segformer.report import html as report
from segformer.report.predictions import Rows, confusions, predictions, rows_of

PAGE = "report.html"
NUM_WORST = 6
SURE = 0.05  # chance below which a difference is called one


def write_evaluation_page(
    folder: Path, title: str, model: Segmenter, source: DataSource, split: str, config: EvalConfig, found: Examination
) -> Path:
    """Write report.html, with pictures of the worst images segmented once more, and return its path."""
    samples = source.samples(split)
    rows = rows_of(model, source, [samples[k] for k in found.worst(NUM_WORST)], config)
    html = report.page(
        title,
        f"{len(found.names)} images of {source.name}, {split}",
        report.section("At a glance", report.facts(headline(found)), report.paragraph(how_sure(found))),
        report.section("Classes", class_figures(found, model.card)),
        report.section("Confusions", *confusions(found.scores.confusion, found.classes)),
        report.section("Calibration", *calibration(found.calibration)),
        report.section("Images", *images(found, rows, model.card)),
    )
    report.write_page(folder / PAGE, html)
    return folder / PAGE


def headline(found: Examination) -> dict[str, str]:
    """Return the figures that are asked for first."""
    low, high = found.interval
    means = {name: f"{value:.3f}" for name, value in found.scores.summary().items()}
    bounds = "too few images" if math.isnan(low) else f"{low:.3f} \N{EN DASH} {high:.3f}"
    return {
        **means,
        "95 % interval of mIoU": bounds,
        "boundary mIoU": f"{float(mean_of(found.boundary_iou)):.3f}",
        "calibration error": f"{found.calibration.ece:.3f}",
    }


def how_sure(found: Examination) -> str:
    """Say what the interval and the boundary IoU mean."""
    return (
        f"The interval is a bootstrap over {found.unit}. Boundary IoU counts pixels within 2 % of the image's "
        f"diagonal of a border only."
    )


def class_figures(found: Examination, card: ModelCard) -> str:
    """Set the figures of each class."""
    scores = found.scores
    columns = {
        "IoU": scores.iou.tolist(),
        "boundary IoU": found.boundary_iou.tolist(),
        "accuracy": scores.accuracy.tolist(),
        "pixels": scores.frequency.tolist(),
    }
    return report.class_table(card.classes, card.palette, columns)


def calibration(found: Calibration) -> list[str]:
    """Set the reliability diagram, and what a temperature would change."""
    curves = {
        "as it is": points(found.reliability),
        f"with temperature {found.temperature:.2f}": points(found.reliability_after),
        "perfect": [(0.0, 0.0), (1.0, 1.0)],
    }
    return [
        report.line_chart(curves, x_label="confidence", y_label="share that is right"),
        report.paragraph(
            f"Expected calibration error {found.ece:.4f}; {found.ece_after:.4f} with the logits divided by "
            f"{found.temperature:.2f}, which was fitted on half of the images and is seen here on the other half. "
            f"Negative log-likelihood {found.nll:.4f} and {found.nll_after:.4f}. Of a sample of the labelled pixels."
        ),
    ]


def points(reliability: np.ndarray) -> list[tuple[float, float]]:
    """(confidence, accuracy) of the bins that hold enough pixels to be drawn."""
    enough = reliability[:, 0] >= max(20.0, 1e-4 * reliability[:, 0].sum())
    return [(float(x), float(y)) for _, x, y in reliability[enough]]


def images(found: Examination, rows: Rows, card: ModelCard) -> list[str]:
    """Set the mIoU of every image as a curve, and the worst ones as pictures."""
    order = np.sort(found.image_miou[~np.isnan(found.image_miou)])
    curve = [(float(place), float(value)) for place, value in enumerate(order, start=1)]
    intro = f"The {len(rows)} images of the lowest mIoU, worst first. Errors are red; what is ignored is black."
    return [
        report.line_chart({"mIoU": curve}, x_label="image, from worst to best", y_label="mIoU of an image"),
        *predictions(rows, card, intro),
    ]


def write_comparison_page(folder: Path, names: Sequence[str], found: Examination, comparison: Comparison) -> Path:
    """Write comparison.html: the classes of two models side by side, and which differences are sure."""
    rows = [
        [name, first, second, change, low, high, p, verdict(change, p)]
        for name, first, second, change, low, high, p in zip(
            (*found.classes, "mean"),
            comparison.first.tolist(),
            comparison.second.tolist(),
            comparison.difference.tolist(),
            comparison.low.tolist(),
            comparison.high.tolist(),
            comparison.p.tolist(),
            strict=True,
        )
    ]
    html = report.page(
        "Comparison",
        f"{names[0]} and {names[1]} on the same {len(found.names)} images",
        report.section(
            "Classes",
            report.table(["class", "IoU, first", "second", "change", "low", "high", "p", "verdict"], rows),
            report.paragraph(
                f"Low and high: 95 % bootstrap interval of the change over {found.unit}. p: chance of a change as "
                f"large if the two models were the same (permutation); of the classes corrected after Holm."
            ),
        ),
    )
    report.write_page(folder / "comparison.html", html)
    return folder / "comparison.html"


def verdict(change: float, p: float) -> str:
    """Say what a difference is worth."""
    if math.isnan(change) or math.isnan(p):
        return "unknown"
    if p >= SURE:
        return "no sure difference"
    return "better" if change > 0 else "worse"
