import json
import signal
from pathlib import Path
from typing import Any

import pytest

from segformer.cli.main import main
from segformer.recipes import find_recipe, read_recipe
from segformer.training import segmentation
from segformer.training.run_folder import read_metrics
from small_runs import stop_in_step

SMALL = ["--data.resize", "64", "48", "--data.crop", "40", "48", "--model.decoder-channels", "32", "--device", "cpu"]
SMALL += ["--train.batch-size", "2", "--train.workers", "0", "--train.log-every", "1"]


def run(*arguments: object) -> int:
    """Exit status of the command."""
    try:
        main(["train", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.mark.parametrize("spelling", ["--run-dir={}", "--run_dir={}", "--run-dir {}"])
def test_a_run_resumes_with_its_own_recipe(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spelling: str
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_in_step(1, signal.SIGTERM, patch)
        options = ["--train.steps", "3", "--train.lr", "0.002", *SMALL]
        assert run("--data", small_data, "--run-dir", folder, *options) == 128 + signal.SIGTERM
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"saved at step 1; resume with: segformer train --run-dir {folder} --resume"
    assert run(*spelling.format(folder).split(), "--resume", "--device", "cpu") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("mIoU 0.")
    assert [line["step"] for line in read_metrics(folder) if "loss" in line] == [1, 2, 3]
    assert read_recipe(folder / "recipe.json").train.lr == 0.002


def test_options_change_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained: list[Any] = []

    def train(*call: Any, **options: Any) -> Any:
        trained.append((*call, options))
        return segmentation.TrainResult(tmp_path, 1, 0.5, 1, None)

    monkeypatch.setattr(segmentation, "train", train)
    assert run("toytown_b0", "--train.lr", "0.5", "--resume", "--run-dir", tmp_path, "--device", "cpu") == 0
    ((recipe, folder, options),) = trained
    assert (recipe.train.lr, recipe.model, folder) == (0.5, find_recipe("toytown_b0").model, tmp_path)
    assert (options["resume"], options["device"], options["devices"]) == (True, "cpu", 1)


def test_seeds_and_searches(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", small_data, "--run-dir", tmp_path / "runs", *SMALL, "--train.steps", "2"]
    assert run(*arguments, "--seeds", "2") == 0
    assert "(2 seeds, standard deviation)" in capsys.readouterr().out
    assert json.loads((tmp_path / "runs" / "seeds.json").read_text())["mIoU"].keys() == {"0", "1"}
    assert run(*arguments, "--find", "batch") == 0
    assert "--train.micro-batch-size" in capsys.readouterr().out


def test_the_learning_rate_is_searched(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("segformer.training.finders.TRIED", 30)
    assert run("--data", small_data, "--run-dir", tmp_path / "runs", *SMALL, "--find", "lr") == 0
    assert "steepest descent at" in capsys.readouterr().out
    assert (tmp_path / "runs" / "lr.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume needs to know the run: give --run-dir DIR, or a RECIPE"),
        ([], "train needs a RECIPE (see segformer train --list) or --data FOLDER"),
        (["--train.lr", "1", "toytown_b0"], "RECIPE must come first: segformer train toytown_b0 ..."),
        (["toytown_b0", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--run-dir=no/such/run", "--resume"], "no such recipe"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_signal_ends_a_series_of_seeds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(recipe: Any, path: Path, **_: Any) -> Any:
        stopped = signal.SIGINT if recipe.train.seed == 1 else None
        return segmentation.TrainResult(path, 1, 0.5, 1, stopped)

    monkeypatch.setattr("segformer.training.seeds.train", train)
    assert run("toytown_b0", "--seeds", "3", "--run-dir", tmp_path, "--device", "cpu") == 128 + signal.SIGINT
    assert capsys.readouterr().out.strip() == "stopped after 1 of 3 seeds; resume with the same command and --resume"


@pytest.mark.parametrize(
    ("chosen", "width"),
    [
        ([], 256),
        (["--model.encoder", "mit_b2"], 768),
        (["--model.encoder=mit_b2", "--model.decoder_channels=256"], 256),  # a given width wins
        (["--model.encoder", "mit_b0"], 256),
    ],
)
def test_an_encoder_brings_its_decoder_width(
    chosen: list[str], width: int, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr("segformer.cli.train.run_training", lambda command, recipe: started.append(recipe))
    assert run("folder_b0", "--data", small_data, "--run-dir", tmp_path / "run", *chosen) == 0
    assert [recipe.model.decoder_channels for recipe in started] == [width]
