"""The report page of a segmentation run, finished or not: key numbers, curves, classes, predictions, confusions."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segformer import report
from segformer.checkpoints.model_folder import CONFIG, read_card
from segformer.config import ModelCard
from segformer.data.dataset import DataSource
from segformer.evaluation.metrics import Scores
from segformer.models.segmenter import Segmenter
from segformer.recipes import RECIPES, read_recipe
from segformer.report.predictions import gallery, prediction_rows
from segformer.training.page import run_curves, run_figures, write_run_page
from segformer.training.run_folder import RECIPE

COLUMNS = (  # heading, key of a score, and the key that version 0.1.0 wrote
    ("IoU", "iou", "IoU"),
    ("accuracy", "accuracy", "accuracy"),
    ("pixels", "share_of_pixels", "share of pixels"),
)


def write_segmentation_page(
    run_dir: Path, model: Segmenter, source: DataSource, split: str, scores: Scores | None = None
) -> Path:
    """Write report.html, with pictures of the predictions of ``model``, into a run folder and return its path.

    ``scores`` are the model's scores on the split.  Without them, the page shows the scores stored with the best model.
    """
    recipe = read_recipe(run_dir / RECIPE)
    card = model.card
    intro = f"Evenly spaced samples of the split {split}. Ignored pixels are black in the label."
    rows = prediction_rows(model, source, split)
    architecture = {
        "encoder": recipe.model.encoder,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
    }
    return write_run_page(
        run_dir,
        recipe,
        RECIPES.get(recipe.name),
        f"Data: {source.name}",
        run_figures(run_dir, recipe.train.steps, "mIoU", "mIoU") | architecture,
        run_curves(run_dir, {"mIoU": "mIoU (val)"}),
        report.section("Classes", *class_figures(run_dir, card, split, scores)),
        report.section("Predictions", *gallery(rows, card, intro)),
        *(
            [report.section("Confusions", report.confusion(scores.confusion, scores.classes))]
            if scores is not None
            else []
        ),
    )


def class_figures(run_dir: Path, card: ModelCard, split: str, scores: Scores | None) -> list[str]:
    """Return the HTML of the classes with their scores, or with only names and colors if no scores are stored."""
    figures, step = known_figures(run_dir, card, split, scores)
    means = [f"{name} {or_nan(figures[name]):.3f}" for name in ("mIoU", "mAcc", "aAcc") if name in figures]
    when = f" at step {step:,}" if step else ""
    intro = f"On the split {split}{when}: {', '.join(means)}." if means else f"Not evaluated on {split} yet."
    if "classes" not in figures:
        return [report.paragraph(intro), report.legend(card.classes, card.palette)]
    rows = [figures["classes"][name] for name in card.classes]
    columns = {
        heading: [or_nan(row[key] if key in row else row[old_key]) for row in rows] for heading, key, old_key in COLUMNS
    }
    return [report.paragraph(intro), report.class_table(card.classes, card.palette, columns)]


def known_figures(run_dir: Path, card: ModelCard, split: str, scores: Scores | None) -> tuple[Mapping[str, Any], int]:
    """Return (scores in the form of ``Scores.to_json``, step of the evaluation).

    Without ``scores``, both are read from the card of the best model, or from ``card`` if no model was saved yet.
    """
    if scores is not None:
        return scores.to_json(), card.provenance.get("step", 0)
    best = run_dir / "best" / CONFIG
    provenance = read_card(best).provenance if best.is_file() else card.provenance
    return provenance.get(split, {}), provenance.get("step", 0)


def or_nan(value: float | None) -> float:
    """Return any number unchanged, and NaN for None, because JSON files store NaN as null."""
    return math.nan if value is None else value
