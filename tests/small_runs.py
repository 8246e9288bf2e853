"""Small training runs for tests: recipes, an interruption, comparisons of weights."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from segformer.config import DataConfig, Preprocessing, Recipe, TrainConfig
from segformer.models.build import model_config
from segformer.training import run as loop
from segformer.training.reporter import SilentReporter

QUIET = SilentReporter()


def recipe_for(root: Path, *, model: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """A recipe for the small data of these tests; ``changes`` are fields of its TrainConfig."""
    config = TrainConfig(
        steps=8, batch_size=4, lr=1e-3, warmup_steps=2, eval_every=4, log_every=1, workers=0, decoder_lr_factor=1.0
    )
    return Recipe(
        name="small",
        description="For tests.",
        model=model_config("mit_b0", **({"decoder_channels": 32} | (model or {}))),
        data=DataConfig(root=str(root), resize=(64, 48), crop=(40, 48)),
        preprocessing=Preprocessing(long_side=64, short_side=48),
        train=replace(config, **changes),
    )


def stop_in_step(number: int, signal_number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal during the optimizer step of this number, counted from 1."""
    step = loop.optimizer_step
    calls: list[int] = []

    def interrupted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == number:
            signal.raise_signal(signal_number)
        return step(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", interrupted)


def stop_in_evaluation(signal_number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal after each image or batch of an evaluation."""
    evaluating = loop.Journal.evaluating

    def interrupted(journal: loop.Journal, done: int, total: int) -> None:
        evaluating(journal, done, total)
        signal.raise_signal(signal_number)

    monkeypatch.setattr(loop.Journal, "evaluating", interrupted)


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    """Weights that a run saved last, of either kind of training."""
    file = run / "last" / "model.safetensors"
    if file.is_file():
        return load_file(file)
    state: dict[str, torch.Tensor] = torch.load(run / "last" / "trainer.pt", weights_only=True)["model"]
    return state


def assert_same_weights(first: Path, second: Path) -> None:
    """Compare the weights that two runs saved last, bit for bit."""
    ours, theirs = last_weights(first), last_weights(second)
    assert ours.keys() == theirs.keys()
    assert not [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
