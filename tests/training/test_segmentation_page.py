import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segformer
from conftest import CLASSES, write_folder
from segformer.checkpoints.model_folder import CONFIG, load
from segformer.config import DataConfig, Preprocessing, Recipe, TrainConfig, default_palette
from segformer.data.dataset import DataSource
from segformer.data.label_table import LabelTable
from segformer.data.sources.catalog import open_data
from segformer.evaluation.evaluate import score
from segformer.evaluation.metrics import Scores
from segformer.files import write_json
from segformer.json_config import to_json
from segformer.models.build import build_model, model_config
from segformer.models.segmenter import Segmenter
from segformer.recipes import FOLDER_B0
from segformer.training.segmentation import train
from segformer.training.segmentation_page import write_segmentation_page
from small_runs import QUIET

DASH = "\N{EN DASH}"
SMALL = Preprocessing(long_side=64, short_side=48)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, DataSource]]:
    """A run of three steps, and the data it was trained on."""
    root = tmp_path_factory.mktemp("trained")
    data = write_folder(root / "data", {"train": 4, "val": 9})
    recipe = Recipe(
        name="small",
        description="for tests",
        model=model_config("mit_b0", decoder_channels=32),
        data=DataConfig(root=str(data), resize=(64, 48), crop=(40, 48)),
        preprocessing=SMALL,
        train=TrainConfig(steps=3, batch_size=2, warmup_steps=1, eval_every=2, log_every=1, workers=0),
    )
    train(recipe, root / "run", device="cpu", reporter=QUIET)
    return root / "run", open_data(recipe.data)


@pytest.fixture
def run(trained: tuple[Path, DataSource], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


@pytest.fixture
def source(trained: tuple[Path, DataSource]) -> DataSource:
    return trained[1]


def page_of(run: Path, source: DataSource, scores: Scores | None = None, model: Segmenter | None = None) -> str:
    path = write_segmentation_page(run, model or load(run / "best"), source, "val", scores)
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


def tiles(html: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", html))


def class_rows(html: str) -> list[list[str]]:
    """The text of each cell of the table of classes."""
    body = re.findall(r"<tbody>(.*?)</tbody>", html)[0]
    return [re.findall(r"([^>]*)</td>", row) for row in body.split("</tr>")[:-1]]


def rewrite_metrics(run: Path, lines: list[dict[str, Any]]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_page_of_a_finished_run(run: Path, source: DataSource) -> None:
    rates = [{"loss": 1.0, "lr": 1e-3, "images_per_second": rate} for rate in (1.0, 50.0, 2.0)]
    figures = [{"val/mIoU": miou} for miou in (0.25, 0.5, 0.5, 0.125)]
    lines = [{"step": step, "seconds": 60.0 * step} | line for step, line in enumerate([*rates, *figures])]
    rewrite_metrics(run, lines)
    model = load(run / "best")
    scores = score(model, source, workers=0)
    html = page_of(run, source, scores)
    known = tiles(html)
    assert (known["best mIoU"], known["at step"], known["minutes"]) == ("0.500", "4", "6.0")
    assert (known["images/s (median)"], known["encoder"]) == ("2", "mit_b0")
    assert known["parameters"] == f"{sum(p.numel() for p in model.parameters()):,}"
    assert known["data.images.val"] == "9"
    assert known["versions.segformer"] == segformer.__version__
    assert known["train.steps"] == "3"
    assert html.count('<img src="data:image/') == 4 * 5
    assert html.count('<svg viewBox="0 0 1000 1000"') == 4
    assert [row[0] for row in class_rows(html)] == CLASSES
    assert [float(row[1]) for row in class_rows(html)] == pytest.approx(scores.iou, abs=6e-4)
    assert 'title="ground, predicted as ' in html
    assert not re.search(r'(src|href)="(?!data:)|https?:|url\(|<script', html)


@pytest.mark.parametrize(("processes", "said"), [(1, "H100"), (2, "2 x H100")])
def test_the_device_is_that_of_the_manifest(run: Path, source: DataSource, processes: int, said: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"device": "H100", "processes": processes}))
    assert tiles(page_of(run, source))["trained on"] == said


def test_names_are_shown_and_not_obeyed(run: Path, source: DataSource) -> None:
    hostile = "<script>alert('1' & \"2\")</script>"
    names = (hostile, "disc", "square")
    run = run.rename(run.with_name("<b>run"))
    model = load(run / "best")
    model.card = replace(model.card, classes=names)
    values = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(values | {"name": hostile, "description": hostile}))
    renamed = replace(source, name=hostile, classes=names)
    html = page_of(run, renamed, Scores(np.eye(3, dtype=np.int64), names), model)
    assert "<script" not in html
    assert "<b>run" not in html
    assert "<b>run" in unescape(html)
    assert unescape(html).count(hostile) > 6  # subtitle, classes, confusions, legend, recipe


def test_a_run_that_was_stopped_before_its_first_figures(run: Path, source: DataSource) -> None:
    shutil.rmtree(run / "best")
    (run / "metrics.jsonl").unlink()
    model = build_model("mit_b0", num_classes=3, decoder_channels=32, preprocessing=SMALL)
    model.card = replace(model.card, classes=source.classes, palette=source.palette)
    html = page_of(run, source, model=model)
    known = tiles(html)
    assert (known["best mIoU"], known["at step"], known["steps"]) == (DASH, DASH, "0 of 3")
    assert "minutes" not in known
    assert html.count("No values of ") == 4
    assert "Not evaluated on val yet." in html
    assert all(f"</span>{name}</li>" in html for name in CLASSES)
    assert html.count('<img src="data:image/') == 4 * 5
    assert "Confusions" not in html


def test_nan_is_left_out(run: Path, source: DataSource) -> None:
    nan = math.nan
    lines = [{"step": 1, "loss": nan, "lr": 1e-3, "images_per_second": nan}, {"step": 2, "val/mIoU": nan}]
    rewrite_metrics(run, lines)
    html = page_of(run, source)
    assert not re.search(r"\b(nan|inf)\b", re.sub(r'base64,[^"]*', "", html))
    assert tiles(html)["best mIoU"] == DASH
    rewrite_metrics(run, [*lines, {"step": 3, "val/mIoU": 0.25}])
    assert tiles(page_of(run, source))["best mIoU"] == "0.250"


def test_figures_of_classes_are_those_kept_with_the_best_model(run: Path, source: DataSource) -> None:
    counts = np.array([[6, 2, 0], [0, 0, 0], [4, 0, 4]])
    kept = {name: value for name, value in Scores(counts, source.classes).to_json().items() if name != "confusion"}
    card = json.loads((run / "best" / CONFIG).read_text())
    card["provenance"] = {"step": 1234, "val": kept}
    (run / "best" / CONFIG).write_text(json.dumps(card))
    html = page_of(run, source)
    assert "On the split val at step 1,234: mIoU 0.333, mAcc 0.625, aAcc 0.625." in html
    assert class_rows(html) == [
        ["ground", "0.500", "0.750", "0.500"],
        ["disc", "0.000", DASH, "0.000"],
        ["square", "0.500", "0.500", "0.500"],
    ]
    assert "Confusions" not in html


def test_two_hundred_classes(run: Path, source: DataSource) -> None:
    names = tuple(f"class <{k}>" for k in range(200))
    model = build_model("mit_b0", num_classes=200, decoder_channels=32, preprocessing=SMALL)
    many = replace(source, classes=names, palette=default_palette(200), table=LabelTable.identity(200))
    model.card = replace(model.card, classes=names, palette=many.palette)
    html = page_of(run, many, Scores(np.eye(200, dtype=np.int64), names), model)
    assert [unescape(row[0]) for row in class_rows(html)] == list(names)
    assert "The confusion matrix of 200 classes is left out" in html
    assert html.count("<li>") < 100  # the legend names only what the pictures show


def test_what_differs_from_the_recipe_of_that_name_is_marked(run: Path, source: DataSource) -> None:
    assert "Marked fields" not in page_of(run, source)
    write_json(run / "recipe.json", to_json(replace(FOLDER_B0, train=replace(FOLDER_B0.train, steps=7))))
    html = page_of(run, source)
    assert re.findall(r'<div class="marked"><dt>([^<]*)</dt><dd>([^<]*)<small>([^<]*)<', html) == [
        ("train.steps", "7", "2000 in folder_b0")
    ]
