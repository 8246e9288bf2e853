import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import CLASSES
from segformer.checkpoints.model_folder import save
from segformer.cli.evaluate import in_percent, print_comparison
from segformer.cli.main import main
from segformer.config import Preprocessing
from segformer.evaluation.statistics import Comparison
from segformer.models.build import build_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of random weights, whose masks have several classes."""
    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model(
            "mit_b0", num_classes=3, decoder_channels=32, preprocessing=Preprocessing(long_side=64, short_side=48)
        )
        torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
        model.card = replace(model.card, classes=tuple(CLASSES))
        folders.append(tmp_path_factory.mktemp("models") / str(seed))
        save(model, folders[-1])
    return folders


def run(*arguments: object) -> int:
    """Exit status of the command line."""
    try:
        main(["evaluate", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_figures_are_printed_and_written(
    models: list[Path], small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(models[0], "--data", small_data, "--limit", 3, "--out", tmp_path / "out") == 0
    first = capsys.readouterr().out.splitlines()
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert first[-1] == f"mIoU {scores['mIoU']:.4f}"
    assert len(scores["images"]) == 3
    row = next(line for line in first if line.startswith("disc"))
    figures = scores["classes"]["disc"]
    expected = (figures[name] for name in ("iou", "boundary_iou", "accuracy", "share_of_pixels"))
    assert row.split()[1:] == [f"{100 * value:.2f}" for value in expected]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["counts", "report.html", "scores.json"]
    assert run(models[0], "--data", small_data, "--limit", 3, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines() == first


def test_an_unfinished_evaluation_of_another_model_is_one_line(
    models: list[Path], small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(models[0], "--data", small_data, "--out", out) == 0
    identity = out / "counts" / "identity.json"
    identity.write_text(identity.read_text().replace('"finished": true', '"finished": false'))
    capsys.readouterr()
    assert run(models[1], "--data", small_data, "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "counts holds another evaluation: weights is " in line


def test_two_models_are_compared_class_by_class(
    models: list[Path], small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(models[0], "--compare", models[1], "--data", small_data) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(
        k for k, line in enumerate(lines) if line.split() == ["class", "first", "second", "change", "low", "high", "p"]
    )
    assert [line.split()[0] for line in lines[heading + 1 : heading + 5]] == [*CLASSES, "mean"]
    assert [line.split()[0] for line in lines[-2:]] == ["mIoU", "mIoU"]


def test_significant_changes_are_marked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    values = np.array([0.5, 0.6])
    comparison = Comparison(values, values + 0.1, values - 0.4, values, np.array([0.04, 0.2]))
    print_comparison(comparison, ["road"], ("one", "two"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["road", "50.00", "60.00", "10.00", "10.00", "50.00", "0.040", "*"]
    assert lines[3].split() == ["mean", "60.00", "70.00", "10.00", "20.00", "60.00", "0.200"]
    assert max(map(len, lines)) <= 80


def test_percentages() -> None:
    assert in_percent(0.12345) == "12.35"
    assert in_percent(float("nan")) == "-"
