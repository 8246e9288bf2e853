from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segformer.config import Recipe
from segformer.data.sources.catalog import open_data
from segformer.training import finders
from segformer.training.finders import BatchSearch, find_batch, find_learning_rate, suggest_rate, try_rates
from segformer.training.processes import build_fabric
from small_runs import recipe_for


@pytest.fixture
def recipe(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(finders, "TRIED", 30)
    return recipe_for(small_data, model={"drop_path": 0.0}, steps=4, warmup_steps=1, decoder_lr_factor=10.0, lr=6e-5)


def test_rates_grow_until_the_loss_diverges(recipe: Recipe) -> None:
    seen: list[tuple[int, int]] = []
    points = try_rates(recipe, open_data(recipe.data), build_fabric("fp32", "cpu"), lambda *at: seen.append(at))
    rates = [rate for rate, _ in points]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(1e-7)
    assert seen == [(number, 30) for number in range(1, len(points) + 1)]
    assert 1e-6 < suggest_rate(points) < 1e-1
    again = try_rates(recipe, open_data(recipe.data), build_fabric("fp32", "cpu"))
    assert points == again  # a function of the seed


def test_the_rate_is_where_the_loss_falls_fastest() -> None:
    falling = [(1e-5, 3.0), (1e-4, 2.9), (1e-3, 2.0), (1e-2, 1.9)]
    assert suggest_rate(falling) == pytest.approx(10**-3.5)
    with pytest.raises(ValueError, match="the loss does not fall at any learning rate"):
        suggest_rate([(1e-5, 1.0), (1e-4, 1.0), (1e-3, 2.0)])
    with pytest.raises(ValueError, match="does not fall at any"):
        suggest_rate([])


def test_the_curve_is_drawn(recipe: Recipe, tmp_path: Path) -> None:
    found = find_learning_rate(recipe, tmp_path / "run", "cpu")
    assert found.page == tmp_path / "run" / "lr.html"
    html = found.page.read_text()
    assert "smoothed loss" in html
    assert f"Suggested learning rate: {found.best:.1e}" in html


def test_the_fastest_micro_batch_that_fits(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def rate(tried: Recipe, *_: Any) -> float:
        size = tried.train.micro_batch_size
        assert size is not None
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {1: 10.0, 2: 30.0, 4: 25.0}[size]

    monkeypatch.setattr(finders, "measure_rate", rate)
    large = replace(recipe, train=replace(recipe.train, batch_size=16))
    found = find_batch(large, "cpu")
    assert found == BatchSearch({1: 10.0, 2: 30.0, 4: 25.0}, too_large=8)
    assert found.best == 2
    monkeypatch.setattr(finders, "measure_rate", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(ValueError, match=r"not even one image fits.*lower data\.crop"):
        find_batch(large, "cpu")
    monkeypatch.setattr(finders, "measure_rate", lambda *_: (_ for _ in ()).throw(RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        find_batch(large, "cpu")


def test_micro_batches_are_measured(recipe: Recipe) -> None:
    found = find_batch(replace(recipe, train=replace(recipe.train, batch_size=3)), "cpu")
    assert list(found.rates) == [1, 2, 3]
    assert min(found.rates.values()) > 0
    assert found.too_large is None
