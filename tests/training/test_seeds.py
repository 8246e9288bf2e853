import json
import signal
from pathlib import Path
from typing import Any

import pytest

from segformer.config import Recipe
from segformer.training import seeds
from segformer.training.run_folder import read_metrics
from segformer.training.seeds import SeedsResult, train_seeds
from segformer.training.segmentation import TrainResult
from small_runs import recipe_for


def test_seeds_have_a_mean_and_a_deviation(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data, steps=4)
    found = train_seeds(recipe, 2, tmp_path / "runs", device="cpu")
    first, second = (read_metrics(tmp_path / "runs" / f"seed_{seed}")[-1]["val/mIoU"] for seed in (0, 1))
    assert first != second
    assert found.mean == pytest.approx((first + second) / 2)
    assert found.deviation == pytest.approx(abs(first - second) / 2**0.5)
    written = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    assert (
        written
        == found.to_json()
        == {"mIoU": {"0": first, "1": second}, "mean": found.mean, "deviation": found.deviation}
    )
    assert train_seeds(recipe, 2, tmp_path / "runs", resume=True, device="cpu") == found


def test_a_signal_ends_the_whole_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def interrupted(seeded: Recipe, path: Path, **_: Any) -> TrainResult:
        trained.append((seeded.train.seed, path.name))
        return TrainResult(path, 1, 0.5, 0, signal.SIGTERM if len(trained) == 2 else None)

    monkeypatch.setattr(seeds, "train", interrupted)
    found = train_seeds(recipe_for(Path(), seed=5), 3, tmp_path)
    assert trained == [(5, "seed_5"), (6, "seed_6")]
    assert found == SeedsResult({5: 0.5}, signal.SIGTERM)
    assert not (tmp_path / "seeds.json").exists()
