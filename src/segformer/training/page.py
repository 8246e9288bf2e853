"""Parts that the report pages of all training runs share: key numbers, curves, recipe, versions and machine."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segformer import report
from segformer.files import read_json
from segformer.json_config import to_json
from segformer.training.run_folder import MANIFEST, flatten, read_metrics

Points = list[tuple[int, float]]

PAGE = "report.html"
DASH = "\N{EN DASH}"


def write_run_page(
    run_dir: Path, recipe: Any, known: Any, subtitle: str, glance: dict[str, str], *sections: str
) -> Path:
    """Write report.html into a run folder and return its path.

    ``known`` is this package's recipe of the same name, or None; fields that differ from it are marked.  ``glance``
    contains the key numbers by their labels.  ``sections`` are HTML and come before the sections on recipe and machine.
    """
    manifest = read_json(run_dir / MANIFEST)
    html = report.page(
        run_dir.resolve().name,
        f"{recipe.name}: {recipe.description} {subtitle}",
        report.section("At a glance", report.facts(glance)),
        *sections,
        report.section("Recipe", *recipe_fields(recipe, known)),
        report.section("Versions, machine and data", report.key_values(manifest_fields(manifest))),
    )
    report.write_page(run_dir / PAGE, html)
    return run_dir / PAGE


def run_figures(run_dir: Path, steps: int, metric: str, label: str) -> dict[str, str]:
    """Return the key numbers of a run by their labels; an unknown number is a dash or is left out.

    ``metric`` decides which model is the best, and ``label`` is the name of this metric on the page.
    """
    metrics = read_metrics(run_dir)
    manifest = read_json(run_dir / MANIFEST)
    best = max(points_of(metrics, f"val/{metric}"), key=lambda point: point[1], default=None)
    rates = [rate for _, rate in points_of(metrics, "images_per_second")]
    seconds = [value for _, value in points_of(metrics, "seconds")]
    device = manifest.get("device", DASH)
    processes = manifest["processes"]
    done = max((line["step"] for line in metrics), default=0)
    return {
        f"best {label}": f"{best[1]:.3f}" if best else DASH,
        "at step": f"{best[0]:,}" if best else DASH,
        "steps": f"{done:,} of {steps:,}",
        **({"minutes": f"{max(seconds) / 60:.1f}"} if seconds else {}),
        "images/s (median)": f"{np.median(rates):.3g}" if rates else DASH,
        "trained on": device if processes == 1 else f"{processes} x {device}",
    }


def run_curves(run_dir: Path, evaluated: Mapping[str, str]) -> str:
    """Draw the curves of metrics.jsonl over the steps; ``evaluated`` maps validation metrics to their labels."""
    metrics = read_metrics(run_dir)
    rows = (
        ("loss", "loss", True),
        *((f"val/{name}", label, False) for name, label in evaluated.items()),
        ("lr", "learning rate", False),
        ("images_per_second", "images per second", False),
    )
    charts = [
        report.line_chart({label: points_of(metrics, name)}, x_label="step", y_label=label, smooth=smooth)
        for name, label, smooth in rows
    ]
    return report.section("Curves", report.columns(*charts))


def points_of(metrics: Sequence[Any], name: str) -> Points:
    """Return (step, value) of each line of metrics.jsonl that has a finite value under this name."""
    return [(line["step"], line[name]) for line in metrics if math.isfinite(line.get(name, math.nan))]


def recipe_fields(recipe: Any, known: Any) -> list[str]:
    """Return the HTML of all fields of a recipe; a field is marked if its value in the ``known`` recipe differs."""
    ours = flatten(to_json(recipe))
    theirs = flatten(to_json(known)) if known else ours
    notes = {key: f"{as_text(theirs[key])} in {recipe.name}" for key in ours if ours[key] != theirs[key]}
    intro = f"Marked fields differ from the recipe {recipe.name} of this package."
    fields = report.key_values({key: as_text(value) for key, value in ours.items()}, notes)
    return [report.paragraph(intro), fields] if notes else [fields]


def manifest_fields(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of manifest.json as text, without the class names, which the page lists elsewhere."""
    fields = flatten(dict(manifest))
    return {
        key: as_text(value) for key, value in fields.items() if key != "data.classes" or not isinstance(value, list)
    }


def as_text(value: Any) -> str:
    """Return a non-empty text unchanged, and any other value as JSON."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
