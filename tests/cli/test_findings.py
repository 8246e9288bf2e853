from pathlib import Path

import pytest

from segformer.cli.findings import print_batches, print_rates, print_seeds, searching
from segformer.training.finders import BatchSearch, RateSearch
from segformer.training.seeds import SeedsResult


def test_a_learning_rate(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates(RateSearch(3.2e-4, Path("runs/x/lr.html")))
    assert capsys.readouterr().out.splitlines() == [
        f"curve: {Path('runs/x/lr.html')}",
        "steepest descent at 3.2e-04: --train.lr 3.2e-04",
    ]


def test_micro_batches(capsys: pytest.CaptureFixture[str]) -> None:
    print_batches(BatchSearch({1: 10.0, 2: 30.0}, too_large=4), 16)
    printed = capsys.readouterr().out
    assert "out of memory" in printed
    assert "30.0" in printed
    assert printed.endswith("fastest: --train.micro-batch-size 2 (a step still takes 16 images)\n")


def test_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    print_seeds(SeedsResult({0: 0.25, 1: 0.75}))
    assert capsys.readouterr().out.splitlines() == [
        "seed 0: 0.2500  seed 1: 0.7500",
        "mIoU 0.5000 +- 0.3536 (2 seeds, standard deviation)",
    ]


def test_a_bar_moves() -> None:
    with searching("rates") as progress:
        progress(1, 3)
        progress(3, 3)
