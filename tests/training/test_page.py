import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from segformer.files import write_json
from segformer.recipes import FOLDER_B0
from segformer.training.page import (
    as_text,
    manifest_fields,
    points_of,
    recipe_fields,
    run_curves,
    run_figures,
    write_run_page,
)

DASH = "\N{EN DASH}"
LINES = [
    {"step": 1, "seconds": 30.0, "loss": 2.0, "lr": 1e-3, "images_per_second": 4.0},
    {"step": 2, "seconds": 60.0, "loss": 1.0, "lr": 1e-4, "images_per_second": 8.0},
    {"step": 2, "seconds": 90.0, "val/top1": 0.25},
    {"step": 3, "seconds": 120.0, "loss": math.nan, "lr": 1e-5, "images_per_second": 6.0},
    {"step": 3, "seconds": 150.0, "val/top1": 0.125},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a manifest and a log alone."""
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    write_json(tmp_path / "manifest.json", {"device": "H100", "processes": 2, "data": {"classes": ["a", "b"]}})
    return tmp_path


def test_key_figures(run: Path) -> None:
    assert run_figures(run, 1000, "top1", "top-1") == {
        "best top-1": "0.250",
        "at step": "2",
        "steps": "3 of 1,000",
        "minutes": "2.5",
        "images/s (median)": "6",
        "trained on": "2 x H100",
    }


def test_what_is_not_known_is_a_dash(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    write_json(run / "manifest.json", {"processes": 1})  # as version 0.1.0 wrote it for pre-training
    figures = run_figures(run, 1000, "top1", "top-1")
    assert {figures[name] for name in ("best top-1", "at step", "images/s (median)", "trained on")} == {DASH}
    assert "minutes" not in figures


def test_curves_of_the_figures_that_are_asked_for(run: Path) -> None:
    html = run_curves(run, {"top1": "top-1 (val)", "top5": "top-5 (val)"})
    assert html.count("<svg") == 4
    assert "top-1 (val) over step: top-1 (val) ends at 0.125" in html
    assert "No values of top-5 (val) to draw." in html


def test_points_leave_out_what_is_not_finite() -> None:
    assert points_of(LINES, "loss") == [(1, 2.0), (2, 1.0)]


def test_fields_that_differ_from_the_known_recipe_are_marked() -> None:
    changed = replace(FOLDER_B0, train=replace(FOLDER_B0.train, steps=7))
    intro, fields = recipe_fields(changed, FOLDER_B0)
    assert "Marked fields differ from the recipe folder_b0" in intro
    assert fields.count('class="marked"') == 1
    assert "2000 in folder_b0" in fields
    assert len(recipe_fields(FOLDER_B0, FOLDER_B0)) == len(recipe_fields(FOLDER_B0, None)) == 1


def test_the_classes_of_the_manifest_stand_elsewhere() -> None:
    assert manifest_fields({"data": {"classes": ["a"], "name": "x"}, "threads": 2}) == {
        "data.name": "x",
        "threads": "2",
    }
    assert manifest_fields({"data": {"classes": 3}}) == {"data.classes": "3"}  # as version 0.1.0 wrote it


def test_text_and_other_values() -> None:
    assert [as_text(value) for value in ("a b", "", None, (1, 2), True, "Straße")] == [
        "a b", '""', "null", "[1, 2]", "true", "Straße"
    ]  # fmt: skip


def test_the_whole_page(run: Path) -> None:
    path = write_run_page(run, FOLDER_B0, None, "Data: <mine>", {"best": "1"}, "<section>more</section>")
    html = path.read_text()
    assert path == run / "report.html"
    assert f"<title>{run.name}</title>" in html
    assert "Data: &lt;mine&gt;" in html
    assert html.index("At a glance") < html.index("<section>more</section>") < html.index("<h2>Recipe</h2>")
    assert html.index("<h2>Recipe</h2>") < html.index("Versions, machine and data")
