"""HTML reports about the evaluation of a model and about the comparison of two models."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segformer import report
from segformer.arrays import Array
from segformer.config import ModelCard
from segformer.data.dataset import DataSource
from segformer.evaluation.calibration import Calibration
from segformer.evaluation.result import Evaluation
from segformer.evaluation.statistics import Comparison
from segformer.inference.predictor import Predictor
from segformer.report.pictures import PictureRow
from segformer.report.predictions import draw_samples, gallery

PAGE = "report.html"
COMPARISON = "comparison.html"
NUM_WORST = 6
SIGNIFICANT = 0.05  # a change is significant if its p-value is below this
FEWEST_PIXELS = 20  # a bin of the reliability diagram with fewer pixels is not drawn
FEWEST_SHARE = 1e-4  # a bin with a smaller share of all pixels is not drawn


def write_evaluation_page(
    folder: Path, title: str, predictor: Predictor, source: DataSource, split: str, evaluation: Evaluation
) -> Path:
    """Write report.html and return its path.  The worst images are segmented again, to show their predictions."""
    samples = source.samples(split)
    card = predictor.model.card
    rows = draw_samples(predictor, source, [samples[k] for k in evaluation.worst(NUM_WORST)])
    html = report.page(
        title,
        f"{len(evaluation.names)} images of {source.name}, {split}",
        report.section("At a glance", report.facts(key_figures(evaluation)), report.paragraph(explained(evaluation))),
        report.section("Classes", class_figures(evaluation, card)),
        report.section("Confusions", report.confusion(evaluation.scores.confusion, evaluation.classes)),
        report.section("Calibration", *calibration_figures(evaluation.calibration)),
        report.section("Images", *image_figures(evaluation, rows, card)),
    )
    report.write_page(folder / PAGE, html)
    return folder / PAGE


def key_figures(evaluation: Evaluation) -> dict[str, str]:
    """Return the most important scores as texts, by heading; they are shown at the top of the page."""
    low, high = evaluation.interval
    means = {name: f"{value:.3f}" for name, value in evaluation.scores.summary().items()}
    return {
        **means,
        "95 % interval of mIoU": "too few images" if math.isnan(low) else f"{low:.3f} \N{EN DASH} {high:.3f}",
        "boundary mIoU": f"{evaluation.boundary_miou:.3f}",
        "calibration error": f"{evaluation.calibration.ece:.3f}",
    }


def explained(evaluation: Evaluation) -> str:
    """Return a text that explains the 95 % interval of the mIoU and the boundary IoU."""
    return (
        f"The interval comes from a bootstrap over {evaluation.unit}. Boundary IoU counts only pixels whose distance "
        f"from a border is at most 2 % of the image's diagonal."
    )


def class_figures(evaluation: Evaluation, card: ModelCard) -> str:
    """Return an HTML table with the scores of each class."""
    scores = evaluation.scores
    columns = {
        "IoU": scores.iou.tolist(),
        "boundary IoU": evaluation.boundary_iou.tolist(),
        "accuracy": scores.accuracy.tolist(),
        "share of pixels": scores.frequency.tolist(),
    }
    return report.class_table(card.classes, card.palette, columns)


def calibration_figures(calibration: Calibration) -> list[str]:
    """Return HTML: the reliability diagram, and a text about the errors with and without the temperature."""
    curves = {
        "measured": reliable_bins(calibration.reliability),
        f"with temperature {calibration.temperature:.2f}": reliable_bins(calibration.reliability_after),
        "perfect": [(0.0, 0.0), (1.0, 1.0)],
    }
    return [
        report.line_chart(curves, x_label="confidence", y_label="accuracy"),
        report.paragraph(
            f"Expected calibration error: {calibration.ece:.4f}, and {calibration.ece_after:.4f} when the logits are "
            f"divided by the temperature {calibration.temperature:.2f}. Negative log-likelihood: "
            f"{calibration.nll:.4f}, and {calibration.nll_after:.4f} with the temperature. The temperature was fitted "
            f"on half of the images; all errors are measured on a sample of the labeled pixels of the other half."
        ),
    ]


def reliable_bins(reliability: Array) -> list[tuple[float, float]]:
    """Return (mean confidence, accuracy) of each bin that has enough pixels to be drawn.  (BINS, 3)"""
    enough = reliability[:, 0] >= max(FEWEST_PIXELS, FEWEST_SHARE * reliability[:, 0].sum())
    return [(float(x), float(y)) for _, x, y in reliability[enough]]


def image_figures(evaluation: Evaluation, rows: Sequence[PictureRow], card: ModelCard) -> list[str]:
    """Return HTML: a curve of the mIoU of the images, from worst to best, and ``rows``, the pictures of the worst."""
    ordered = np.sort(evaluation.image_miou[~np.isnan(evaluation.image_miou)])
    curve = [(float(rank), float(miou)) for rank, miou in enumerate(ordered, start=1)]
    intro = f"The {len(rows)} images with the lowest mIoU, worst first. Errors are red; ignored pixels are black."
    return [
        report.line_chart({"mIoU": curve}, x_label="images, from worst to best", y_label="mIoU of an image"),
        *gallery(rows, card, intro),
    ]


def write_comparison_page(folder: Path, names: Sequence[str], evaluation: Evaluation, comparison: Comparison) -> Path:
    """Write comparison.html and return its path.  It shows which differences between two models are significant.

    ``names`` are the names of the two models; ``evaluation`` is the evaluation of either model.
    """
    columns = (comparison.first, comparison.second, comparison.difference, comparison.low, comparison.high)
    rows = [
        [name, *values, p, verdict(values[2], p)]
        for name, p, *values in zip(
            (*evaluation.classes, "mean"), comparison.p.tolist(), *(column.tolist() for column in columns), strict=True
        )
    ]
    html = report.page(
        "Comparison",
        f"{names[0]} and {names[1]} on the same {len(evaluation.names)} images",
        report.section(
            "Classes",
            report.table(["class", "IoU, first", "IoU, second", "change", "low", "high", "p", "verdict"], rows),
            report.paragraph(
                f"The change is the second IoU minus the first. Low and high are the limits of its 95 % bootstrap "
                f"interval over {evaluation.unit}. p is the probability of a change at least as large if the two "
                f"models were equally good (permutation test). The p-values of the classes are corrected by Holm's "
                f"method, because many classes are tested."
            ),
        ),
    )
    report.write_page(folder / COMPARISON, html)
    return folder / COMPARISON


def verdict(change: float, p: float) -> str:
    """Return "better", "worse" or "no significant change" for a change and its p-value; "unknown" if one is NaN."""
    if math.isnan(change) or math.isnan(p):
        return "unknown"
    if p >= SIGNIFICANT:
        return "no significant change"
    return "better" if change > 0 else "worse"
