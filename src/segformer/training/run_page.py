"""A page about a run, finished or not: figures, curves, classes, pictures of predictions, recipe, machine."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segformer import report
from segformer.checkpoint import CONFIG, read_card
from segformer.config import IGNORE_INDEX, ModelCard, Recipe, to_json
from segformer.data.dataset import DataSource
from segformer.data.images import Decoding, displayed
from segformer.evaluation.evaluate import check_classes, load_whole
from segformer.evaluation.inference import predict_mask
from segformer.evaluation.metrics import Scores
from segformer.files import read_json
from segformer.models.segmenter import Segmenter
from segformer.recipes import RECIPES, read_recipe
from segformer.segmentation import Segmentation, colorize
from segformer.training.run_folder import MANIFEST, RECIPE, flat, read_metrics

Array = NDArray[Any]
Rows = list[tuple[str, list[tuple[str, Array]]]]
Points = list[tuple[int, float]]

PAGE = "report.html"
GRID_WIDTH, GAP = 320, 4  # of the pictures in a grid, in pixels
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
    html = report.page(
        run_dir.resolve().name,
        f"{recipe.name}: {recipe.description} Data: {source.name}",
        report.section("At a glance", report.facts(headline(recipe, manifest, metrics, model))),
        report.section("Curves", report.columns(*curves(metrics))),
        report.section("Classes", *class_figures(run_dir, card, split, scores)),
        report.section("Predictions", *predictions(rows, card, split)),
        *([report.section("Confusions", *confusions(scores))] if scores is not None else []),
        report.section("Recipe", *recipe_fields(recipe)),
        report.section("Versions, machine and data", report.key_values(environment_of(manifest))),
    )
    report.write_page(run_dir / PAGE, html)
    return run_dir / PAGE


def prediction_rows(model: Segmenter, source: DataSource, split: str, count: int = 4) -> Rows:
    """Segment evenly spaced samples of a split by the model's own protocol: a caption and labelled pictures for each.

    Pictures are (H, W, 3) uint8 of at most 640 pixels a side.  Raises a ValueError where the model's classes are not
    those of the data.
    """
    check_classes(model, source)
    samples, card = source.samples(split), model.card
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    chosen, fused = [samples[k] for k in places], model.fuse()
    rows: Rows = []
    decoding = Decoding.of(card.model, card.preprocessing)
    for sample, (image, label) in zip(chosen, load_whole(source, chosen, 0, decoding), strict=True):
        prediction, truth = predict_mask(fused, image, card.eval).cpu().numpy(), label.numpy()
        pictures = draw(image.numpy().transpose(1, 2, 0), truth, prediction, card)
        rows.append((f"{sample.name}: {share_right(prediction, truth)}", pictures))
    return rows


def draw(pixels: Array, label: Array, prediction: Array, card: ModelCard) -> list[tuple[str, Array]]:
    """Picture an image (H, W, C) with its masks (H, W), shrunk before the overlay so that its borders stay visible."""
    image = Image.fromarray(displayed(pixels))
    image.thumbnail((report.LONG_SIDE, report.LONG_SIDE), Image.Resampling.LANCZOS)
    label, prediction = (
        np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST))
        for mask in (label, prediction)
    )
    result = Segmentation(prediction, card.classes, card.palette, np.asarray(image))
    return [
        ("image", np.asarray(image)),
        ("label", colorize(label, card.palette)),
        ("prediction", result.colors()),
        ("overlay", result.overlay()),
    ]


def share_right(prediction: Array, label: Array) -> str:
    """Say how many of the labelled pixels are right."""
    labelled = label != IGNORE_INDEX
    if not labelled.any():
        return "no pixel is labelled"
    return f"{100 * (prediction == label)[labelled].mean():.1f} % of the labelled pixels are right"


def picture_grid(rows: Rows) -> Array:
    """Set the pictures of at least one row into a grid, each at most 320 pixels wide.  -> (H, W, 3) uint8"""
    lines = [[report.thumbnail(pixels, GRID_WIDTH, report.LONG_SIDE) for _, pixels in pictures] for _, pictures in rows]
    width = GAP + max(image.width for line in lines for image in line)
    heights = [GAP + max(image.height for image in line) for line in lines]
    grid = Image.new("RGB", (max(map(len, lines)) * width - GAP, sum(heights) - GAP), "white")
    for i, line in enumerate(lines):
        for j, image in enumerate(line):
            grid.paste(image, (j * width, sum(heights[:i])))
    return np.asarray(grid)


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
        for heading, name in (("IoU", "IoU"), ("accuracy", "accuracy"), ("pixels", "share of pixels"))
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


def predictions(rows: Rows, card: ModelCard, split: str) -> list[str]:
    """Set pictures below the colours that occur in them."""
    seen = {
        color
        for _, pictures in rows
        for label, pixels in pictures
        if label in ("label", "prediction")
        for _, color in Image.fromarray(pixels).getcolors(len(card.palette) + 1) or []
    }
    shown = [(name, color) for name, color in zip(card.classes, card.palette, strict=True) if tuple(color) in seen]
    names, colors = zip(*shown, strict=True) if shown else ((), ())
    return [
        report.paragraph(f"Samples of the split {split}, evenly spaced. What is ignored in a label is black."),
        report.legend(names, colors),
        report.pictures(rows),
    ]


def confusions(scores: Scores) -> list[str]:
    """Set the confusion matrix."""
    return [
        report.paragraph("Rows are labels: what their pixels are taken for, in percent. Columns are predictions."),
        report.confusion(scores.confusion, scores.classes),
    ]


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
