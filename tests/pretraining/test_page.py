import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from pretraining_runs import SMALL
from segformer.files import write_json
from segformer.pretraining.page import write_pretraining_page
from segformer.pretraining.recipes import PRETRAIN_RECIPES

LABELS = {"top1": "top-1", "top5": "top-5"}
LINES = [
    {"step": 1, "seconds": 30.0, "loss": 2.0, "lr": 1e-3, "images_per_second": 4.0},
    {"step": 6, "epoch": 1, "seconds": 60.0, "val/top1": 0.5, "val/top5": 0.875},
    {"step": 12, "epoch": 2, "seconds": 90.0, "val/top1": 0.625, "val/top5": 1.0},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    write_json(tmp_path / "manifest.json", {"device": "cpu", "processes": 1, "data": {"classes": ["a", "b"]}})
    return tmp_path


def test_figures_and_curves(run: Path) -> None:
    html = write_pretraining_page(run, SMALL, nn.Linear(3, 4), 12, LABELS).read_text()
    for name, value in {"best top-1": "0.625", "at step": "12", "encoder": "mit_b0", "parameters": "16"}.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in html
    assert html.count("<svg") == 5
    for label in ("top-1 (val)", "top-5 (val)", "loss", "learning rate", "images per second"):
        assert f"<b>{label}</b>" in html
    assert "Marked fields" not in html  # no recipe of this package has the name


def test_fields_that_differ_from_the_recipe_are_marked(run: Path) -> None:
    recipe = replace(PRETRAIN_RECIPES["imagenet_b0"], epochs=3, warmup_epochs=1)
    html = write_pretraining_page(run, recipe, nn.Linear(3, 4), 12, LABELS).read_text()
    assert "300 in imagenet_b0" in html
    assert html.count('class="marked"') == 2
