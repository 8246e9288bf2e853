"""What the options of a run change in its model, its loss and its end."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from rich.console import Console

from conftest import CLASSES, write_folder
from segformer.checkpoints.conversion import convert
from segformer.checkpoints.model_folder import load
from segformer.config import DataConfig, Preprocessing, Recipe, TrainConfig
from segformer.data.dataset import fingerprint
from segformer.data.sources.catalog import open_data
from segformer.models.build import build_model, model_config
from segformer.models.segmenter import Segmenter
from segformer.training import run as loop
from segformer.training.preparation import count_pixels, prepare_model, step_in_words, with_class_weights
from segformer.training.run import train
from segformer.training.run_folder import read_metrics
from segformer.training.step import out_of_memory

QUIET = Console(quiet=True)
CPU = Fabric(accelerator="cpu", devices=1)


def recipe_for(root: Path, *, model: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    config = TrainConfig(steps=4, batch_size=4, lr=1e-3, warmup_steps=2, eval_every=2, log_every=1, workers=0)
    return Recipe(
        name="small",
        description="for tests",
        model=model_config("mit_b0", decoder_channels=32, **(model or {})),
        data=DataConfig(root=str(root), resize=(64, 48), crop=(40, 48)),
        preprocessing=Preprocessing(long_side=64, short_side=48),
        train=replace(config, **changes),
    )


def small_model(**options: Any) -> Segmenter:
    torch.manual_seed(0)
    return build_model("mit_b0", num_classes=3, decoder_channels=32, **options)


@pytest.mark.parametrize("stages", [1, 4])
def test_frozen_stages_keep_their_weights(small_data: Path, tmp_path: Path, stages: int) -> None:
    recipe = recipe_for(small_data, frozen_stages=stages)
    train(recipe, tmp_path / "run", console=QUIET)
    torch.manual_seed(recipe.train.seed)
    before = loop.build_initialized(
        recipe, open_data(recipe.data), loop.RunFolder(tmp_path / "none"), QUIET
    ).state_dict()
    after = load(tmp_path / "run" / "last").state_dict()
    for name, tensor in before.items():
        frozen = any(name.startswith(f"encoder.stages.{k}.") for k in range(stages))
        assert torch.equal(tensor, after[name]) == frozen, name


def test_frozen_stages_drop_nothing() -> None:
    model = prepare_model(small_model(drop_path=0.5), recipe_for(Path(), frozen_stages=2), CPU)
    assert [stage.training for stage in model.encoder.stages] == [False, False, True, True]  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in model.encoder.stages[:2].parameters())  # type: ignore[index]


def test_a_frozen_norm_keeps_its_statistics(small_data: Path, tmp_path: Path) -> None:
    train(recipe_for(small_data, frozen_norm=True), tmp_path / "run", console=QUIET)
    norm = load(tmp_path / "run" / "last").decoder.norm
    assert torch.equal(norm.running_mean, torch.zeros(32))  # type: ignore[union-attr, arg-type]
    assert torch.equal(norm.weight, torch.ones(32))  # type: ignore[union-attr, arg-type]


def test_recomputed_blocks_have_the_same_gradients() -> None:
    images, gradients = torch.randn(2, 3, 64, 64), []
    for recompute in (False, True):
        model = prepare_model(small_model(drop_path=0.3), recipe_for(Path(), checkpointing=recompute), CPU)
        torch.manual_seed(1)
        model(images).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_the_average_is_that_of_the_formula(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    step = loop.optimizer_step

    def watched(fabric: Fabric, model: Any, *rest: Any) -> torch.Tensor:
        loss = step(fabric, model, *rest)
        seen.append(model.decoder.classifier.weight.detach().clone())
        return loss

    monkeypatch.setattr(loop, "optimizer_step", watched)
    recipe = recipe_for(small_data, ema=0.75, eval_every=4, steps=4)
    result = train(recipe, tmp_path / "run", console=QUIET)
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.75 * expected + 0.25 * weight
    best, last = load(tmp_path / "run" / "best"), load(tmp_path / "run" / "last")
    torch.testing.assert_close(best.decoder.classifier.weight, expected)  # type: ignore[union-attr]
    assert torch.equal(last.decoder.classifier.weight, seen[-1])  # type: ignore[union-attr]
    assert loop.score(best, open_data(recipe.data), workers=0).miou == result.best_miou


def test_an_averaged_run_resumes_exactly(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data, ema=0.9)
    train(recipe, tmp_path / "whole", console=QUIET)
    evaluate = loop.Journal.evaluated
    with pytest.MonkeyPatch.context() as patch:

        def stop(journal: Any, step: int, *rest: Any) -> None:
            evaluate(journal, step, *rest)
            loop.signal.raise_signal(loop.signal.SIGTERM)

        patch.setattr(loop.Journal, "evaluated", stop)
        assert train(recipe, tmp_path / "parts", console=QUIET).step == 2
    train(recipe, tmp_path / "parts", resume=True, console=QUIET)
    for name in ("best", "last"):
        ours, theirs = (load(tmp_path / run / name).state_dict() for run in ("whole", "parts"))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_training_ends_for_want_of_progress(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score, mious = loop.score, iter([0.3, 0.5, 0.4, 0.5, 0.45, 0.9])

    def scripted(*arguments: Any, **options: Any) -> Any:
        scores = score(*arguments, **options)
        miou = next(mious)
        monkeypatch.setattr(type(scores), "miou", property(lambda _: miou))
        return scores

    monkeypatch.setattr(loop, "score", scripted)
    recipe = recipe_for(small_data, steps=20, eval_every=1, patience=3)
    result = train(recipe, tmp_path / "run", console=QUIET)
    assert (result.step, result.best_step, result.best_miou, result.interrupted) == (5, 2, 0.5, None)
    again = train(recipe, tmp_path / "run", resume=True, console=QUIET)  # it had ended, and stays so
    assert (again.step, again.best_step) == (5, 2)


def test_class_weights_are_counted(small_data: Path) -> None:
    source = open_data(str(small_data))
    pixels = count_pixels(source, source.samples("train"))
    masks = np.stack([np.asarray(Image.open(p)) for p in (small_data / "masks/train").iterdir()])
    assert pixels == [int((masks == k).sum()) for k in range(3)]
    recipe = with_class_weights(recipe_for(small_data, balanced=True), source)
    raw = np.array(pixels) ** -0.5
    assert recipe.train.class_weights == pytest.approx((raw / raw.mean()).round(2))
    assert with_class_weights(recipe_for(small_data), source).train.class_weights is None


@pytest.mark.parametrize(
    "changes", [{"loss": "ohem"}, {"loss": "focal"}, {"dice": 0.5}, {"loss": "focal", "dice": 1.0, "balanced": True}]
)
def test_other_losses_learn(small_data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = recipe_for(small_data, steps=40, eval_every=40, decoder_lr_factor=1.0, micro_batch_size=2, **changes)
    result = train(recipe, tmp_path / "run", console=QUIET)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert result.best_miou > 0.3


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    root = write_folder(tmp_path / "two", {"train": 8, "val": 3})
    for path in root.glob("masks/*/*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(np.where((mask == 2), 1, mask).astype(np.uint8)).save(path)
    (root / "dataset.json").write_text(json.dumps({"classes": CLASSES[:2]}))
    return root


def test_a_binary_head_is_one_logit(two_classes: Path, tmp_path: Path) -> None:
    recipe = recipe_for(two_classes, steps=40, eval_every=40, decoder_lr_factor=1.0, model={"binary": True})
    result = train(recipe, tmp_path / "run", console=QUIET)
    assert result.best_miou > 0.6
    model = load(tmp_path / "run" / "best")
    assert model.decoder.classifier.weight.shape[0] == 1  # type: ignore[union-attr, index]
    images = torch.randn(1, 3, 64, 96)
    logits = model(images)
    assert torch.equal(logits[:, 0], torch.zeros_like(logits[:, 0]))
    torch.testing.assert_close(model.fuse()(images), logits, rtol=1e-4, atol=1e-4)
    for layout in ("hf", "smp", "nvlabs", "segformer"):
        convert(tmp_path / "run" / "best", tmp_path / layout, layout)
        torch.testing.assert_close(
            load(tmp_path / layout)(images).diff(dim=1), logits.diff(dim=1), rtol=1e-4, atol=1e-4
        )


def test_a_binary_head_takes_two_classes(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.binary is for two classes, got 3"):
        train(recipe_for(small_data, model={"binary": True}), tmp_path / "run", console=QUIET)


def test_deterministic_algorithms_are_asked_for_within_the_run(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, asked = loop.optimizer_step, []

    def watched(*arguments: Any) -> torch.Tensor:
        asked.append(torch.are_deterministic_algorithms_enabled())
        return step(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", watched)
    train(recipe_for(small_data, deterministic=True), tmp_path / "run", console=QUIET)
    assert asked == [True] * 4
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_a_compiled_run_learns_and_is_saved(small_data: Path, tmp_path: Path) -> None:
    still = {"dropout": 0.0, "drop_path": 0.0}  # compiled, dropout draws other numbers
    plain = train(recipe_for(small_data, model=still), tmp_path / "plain", console=QUIET)
    compiled = train(recipe_for(small_data, model=still, compile=True, ema=0.5), tmp_path / "run", console=QUIET)
    assert compiled.step == plain.step
    ours, theirs = ([m["loss"] for m in read_metrics(tmp_path / n) if "loss" in m] for n in ("plain", "run"))
    assert ours[:2] == pytest.approx(theirs[:2], rel=1e-3)
    assert load(tmp_path / "run" / "best").card.classes == tuple(CLASSES)


def test_out_of_memory_says_how_to_get_by() -> None:
    recipe = recipe_for(Path(), micro_batch_size=2)
    message = str(out_of_memory(torch.OutOfMemoryError("CUDA out of memory"), recipe, 7))
    assert message.startswith("out of memory at step 7; set train.micro_batch_size below 2")
    assert "train.checkpointing" in message
    with pytest.raises(RuntimeError, match="another"):
        out_of_memory(RuntimeError("another"), recipe, 7)


def test_the_fingerprint_is_of_files_and_classes(small_data: Path, tmp_path: Path) -> None:
    source = open_data(str(small_data))
    assert fingerprint(source) == fingerprint(open_data(str(small_data)))
    with (small_data / "masks/train/003.png").open("ab") as file:
        file.write(b"x")
    changed = fingerprint(source)
    assert changed != fingerprint(open_data("toytown"))
    assert fingerprint(replace(source, classes=("a", "b", "c"))) != changed


def test_a_step_in_words() -> None:
    recipe = recipe_for(Path(), batch_size=16, micro_batch_size=4)
    assert step_in_words(recipe, CPU) == "of 16 = 4 x 4"
