"""A page about a run, finished or not: figures, curves, classes, pictures of predictions, recipe, machine."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segformer import report
from segformer.checkpoints.model_folder import CONFIG, read_card
from segformer.config import ModelCard, Recipe, to_json
from segformer.data.dataset import DataSource
from segformer.evaluation.metrics import Scores
from segformer.files import read_json
from segformer.models.segmenter import Segmenter
from segformer.recipes import RECIPES, read_recipe
from segformer.report.predictions import gallery, prediction_rows
from segformer.training.run_folder import MANIFEST, RECIPE, flat, read_metrics

Points = list[tuple[int, float]]

PAGE = "report.html"
DASH = "\N{EN DASH}"


def write_run_page(
    run_dir: Path, model: Segmenter, source: DataSource, split: str, scores: Scores | None = None
) -> Path:
    """Write report.html into a run's folder, with pictures of what ``model`` predicts, and return its path.

    ``scores`` are the model's on the split; without them the figures of classes are those kept with the best model.
    """
    recipe, manifest = read_recipe(run_dir / RECIPE), read_json(run_dir / MANIFEST)
    metrics, card = read_metrics(run_dir), model.card
    rows = prediction_rows(model, source, split)
    shown = f"Samples of the split {split}, evenly spaced. What is ignored in a label is black."
    html = report.page(
        run_dir.resolve().name,
        f"{recipe.name}: {recipe.description} Data: {source.name}",
        report.section("At a glance", report.facts(headline(recipe, manifest, metrics, model))),
        report.section("Curves", report.columns(*curves(metrics))),
        report.section("Classes", *class_figures(run_dir, card, split, scores)),
        report.section("Predictions", *gallery(rows, card, shown)),
        *(
            [report.section("Confusions", report.confusion(scores.confusion, scores.classes))]
            if scores is not None
            else []
        ),
        report.section("Recipe", *recipe_fields(recipe)),
        report.section("Versions, machine and data", report.key_values(environment_of(manifest))),
    )
    report.write_page(run_dir / PAGE, html)
    return run_dir / PAGE


def headline(recipe: Recipe, manifest: Mapping[str, Any], metrics: Sequence[Any], model: Segmenter) -> dict[str, str]:
    """Return the figures that a run is asked for first; what is not known is left out, or a dash."""
    best = max(finite(metrics, "val/mIoU"), key=lambda point: point[1], default=None)
    rates = [rate for _, rate in finite(metrics, "images_per_second")]
    seconds = [value for _, value in finite(metrics, "seconds")]
    device, processes = manifest["device"], manifest["processes"]
    done = max((line["step"] for line in metrics), default=0)
    return {
        "best mIoU": f"{best[1]:.3f}" if best else DASH,
        "at step": f"{best[0]:,}" if best else DASH,
        "steps": f"{done:,} of {recipe.train.steps:,}",
        **({"minutes": f"{max(seconds) / 60:.1f}"} if seconds else {}),
        "images/s (median)": f"{np.median(rates):.3g}" if rates else DASH,
        "trained on": device if processes == 1 else f"{processes} x {device}",
        "encoder": recipe.model.encoder,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
    }


def curves(metrics: Sequence[Any]) -> list[str]:
    """Draw what metrics.jsonl holds over the steps."""
    return [
        report.line_chart({label: finite(metrics, name)}, x_label="step", y_label=label, smooth=smooth)
        for name, label, smooth in (
            ("loss", "loss", True),
            ("val/mIoU", "mIoU (val)", False),
            ("lr", "learning rate", False),
            ("images_per_second", "images per second", False),
        )
    ]


def finite(metrics: Sequence[Any], name: str) -> Points:
    """(step, value) of each line that has the value, NaN and infinity left out."""
    return [(line["step"], line[name]) for line in metrics if math.isfinite(line.get(name, math.nan))]


def class_figures(run_dir: Path, card: ModelCard, split: str, scores: Scores | None) -> list[str]:
    """Set the figures of each class, or where none were kept its name and colour."""
    figures, step = known_figures(run_dir, card, split, scores)
    means = [f"{name} {or_nan(figures[name]):.3f}" for name in ("mIoU", "mAcc", "aAcc") if name in figures]
    when = f" at step {step:,}" if step else ""
    intro = f"On the split {split}{when}: {', '.join(means)}." if means else f"Not evaluated on {split} yet."
    if "classes" not in figures:
        return [report.paragraph(intro), report.legend(card.classes, card.palette)]
    columns = {
        heading: [or_nan(figures["classes"][label][name]) for label in card.classes]
        for heading, name in (("IoU", "iou"), ("accuracy", "accuracy"), ("pixels", "share_of_pixels"))
    }
    return [report.paragraph(intro), report.class_table(card.classes, card.palette, columns)]


def known_figures(run_dir: Path, card: ModelCard, split: str, scores: Scores | None) -> tuple[Mapping[str, Any], int]:
    """Return what ``Scores.to_json`` gives, and the step: of the scores given, or as kept with the best model."""
    best = run_dir / "best" / CONFIG
    if scores is None and best.is_file():
        card = read_card(best)
    figures = card.provenance.get(split, {}) if scores is None else scores.to_json()
    return figures, card.provenance.get("step", 0)


def or_nan(value: float | None) -> float:
    """Undo what JSON makes of NaN."""
    return math.nan if value is None else value


def recipe_fields(recipe: Recipe) -> list[str]:
    """Set each field; one that the recipe of the same name has otherwise is marked."""
    ours, known = flat(to_json(recipe)), RECIPES.get(recipe.name)
    theirs = flat(to_json(known)) if known else ours
    notes = {key: f"{as_text(theirs[key])} in {recipe.name}" for key in ours if ours[key] != theirs[key]}
    intro = [report.paragraph(f"Marked: what differs from the recipe {recipe.name} of this package.")] if notes else []
    return [*intro, report.key_values({key: as_text(value) for key, value in ours.items()}, notes)]


def environment_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what manifest.json holds, dotted; classes are named elsewhere on the page."""
    return {key: as_text(value) for key, value in flat(dict(manifest)).items() if key != "data.classes"}


def as_text(value: Any) -> str:
    """Write a value as recipe.json has it, but words without quotes."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
