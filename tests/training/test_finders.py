import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from segformer.cli.main import main
from segformer.config import DataConfig, Preprocessing, Recipe, TrainConfig
from segformer.data.sources.catalog import open_data
from segformer.models.build import model_config
from segformer.training import finders, seeds
from segformer.training.finders import find, find_batch, suggest_rate, try_rates
from segformer.training.processes import build_fabric
from segformer.training.run import TrainResult
from segformer.training.run_folder import read_metrics
from segformer.training.seeds import train_seeds


@pytest.fixture
def recipe(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(finders, "TRIED", 30)
    return Recipe(
        name="small",
        description="for tests",
        model=model_config("mit_b0", decoder_channels=32, drop_path=0.0),
        data=DataConfig(root=str(small_data), resize=(64, 48), crop=(40, 48)),
        preprocessing=Preprocessing(long_side=64, short_side=48),
        train=TrainConfig(steps=4, batch_size=4, warmup_steps=1, eval_every=4, log_every=1, workers=0),
    )


def test_rates_grow_until_the_loss_diverges(recipe: Recipe) -> None:
    points = try_rates(recipe, open_data(recipe.data), build_fabric("fp32", "cpu"))
    rates = [rate for rate, _ in points]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(1e-7)
    assert 1e-6 < suggest_rate(points) < 1e-1
    again = try_rates(recipe, open_data(recipe.data), build_fabric("fp32", "cpu"))
    assert points == again  # a function of the seed


def test_the_rate_is_where_the_loss_falls_fastest() -> None:
    falling = [(1e-5, 3.0), (1e-4, 2.9), (1e-3, 2.0), (1e-2, 1.9)]
    assert suggest_rate(falling) == pytest.approx(10**-3.5)
    with pytest.raises(ValueError, match="the loss falls at no learning rate"):
        suggest_rate([(1e-5, 1.0), (1e-4, 1.0), (1e-3, 2.0)])
    with pytest.raises(ValueError, match="falls at no"):
        suggest_rate([])


def test_the_curve_is_drawn(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    find("lr", recipe, tmp_path / "run", "cpu")
    printed = capsys.readouterr().out
    assert "steepest descent at" in printed
    assert "--train.lr" in printed
    assert "loss, smoothed" in (tmp_path / "run" / "lr.html").read_text()


def test_the_fastest_micro_batch_that_fits(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def rate(tried: Recipe, *_: Any) -> float:
        size = tried.train.micro_batch_size
        assert size is not None
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {1: 10.0, 2: 30.0, 4: 25.0}[size]

    monkeypatch.setattr(finders, "rate_of", rate)
    large = replace(recipe, train=replace(recipe.train, batch_size=16))
    fabric, source = build_fabric("fp32", "cpu"), open_data(recipe.data)
    assert find_batch(large, source, fabric, Console(quiet=True)) == 2
    monkeypatch.setattr(finders, "rate_of", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(ValueError, match=r"not even one image fits.*lower data\.crop"):
        find_batch(large, source, fabric, Console(quiet=True))


def test_micro_batches_are_measured(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    find("batch", replace(recipe, train=replace(recipe.train, batch_size=3)), None, "cpu")
    printed = capsys.readouterr().out
    assert "(a step stays 3 images)" in printed
    assert printed.count("│ 1 ") == printed.count("│ 2 ") == printed.count("│ 3 ") == 1


def test_seeds_have_a_mean_and_a_deviation(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = train_seeds(recipe, 2, tmp_path / "runs", resume=False, device="cpu")
    first, second = (read_metrics(tmp_path / "runs" / f"seed_{seed}")[-1]["val/mIoU"] for seed in (0, 1))
    assert first != second
    assert summary["mean"] == pytest.approx((first + second) / 2)
    assert summary["deviation"] == pytest.approx(abs(first - second) / 2**0.5)
    assert json.loads((tmp_path / "runs" / "seeds.json").read_text()) == summary
    assert "(2 seeds, standard deviation)" in capsys.readouterr().out
    again = train_seeds(recipe, 2, tmp_path / "runs", resume=True, device="cpu")
    assert again == summary


def test_a_signal_ends_all_seeds(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    trained = []

    def interrupted(seeded: Recipe, path: Path, **_: Any) -> TrainResult:
        trained.append(seeded.train.seed)
        return TrainResult(path, 1, 0.0, 0, signal.SIGTERM)

    monkeypatch.setattr(seeds, "train", interrupted)
    with pytest.raises(SystemExit) as stopped:
        train_seeds(recipe, 3, tmp_path, resume=False)
    assert (stopped.value.code, trained) == (128 + signal.SIGTERM, [0])


def test_from_the_command_line(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--data.resize", "64", "48", "--data.crop", "40", "48", "--train.workers", "0", "--train.steps", "2"]
    arguments = ["train", "--data", str(small_data), "--run-dir", str(tmp_path / "runs"), "--device", "cpu", *small]
    main([*arguments, "--train.batch-size", "2", "--seeds", "2"])
    assert "mIoU 0." in capsys.readouterr().out
    main([*arguments, "--train.batch-size", "2", "--find", "batch"])
    assert "--train.micro-batch-size" in capsys.readouterr().out
