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

from conftest import CLASSES, write_folder
from segformer.checkpoints.conversion import convert
from segformer.checkpoints.model_folder import load
from segformer.config import Recipe
from segformer.data.dataset import fingerprint
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.evaluation.evaluate import score
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from segformer.recipes import FOLDER_B0
from segformer.training import run as loop
from segformer.training import segmentation
from segformer.training.preparation import (
    build_random,
    check_data,
    class_weights_of,
    count_pixels,
    prepare_model,
    step_in_words,
    training_decoding,
    training_set,
)
from segformer.training.run_folder import read_metrics
from segformer.training.segmentation import train
from small_runs import QUIET
from small_runs import recipe_for as small_recipe

CPU = Fabric(accelerator="cpu", devices=1)


def recipe_for(root: Path, **changes: Any) -> Recipe:
    return small_recipe(root, **({"steps": 4, "eval_every": 2, "decoder_lr_factor": 10.0} | changes))


def small_model(**options: Any) -> Segmenter:
    torch.manual_seed(0)
    return build_model("mit_b0", num_classes=3, decoder_channels=32, **options)


@pytest.mark.parametrize("stages", [1, 4])
def test_frozen_stages_keep_their_weights(small_data: Path, tmp_path: Path, stages: int) -> None:
    recipe = recipe_for(small_data, frozen_stages=stages)
    train(recipe, tmp_path / "run", reporter=QUIET)
    torch.manual_seed(recipe.train.seed)
    before = build_random(recipe, open_data(recipe.data)).state_dict()
    after = load(tmp_path / "run" / "last").state_dict()
    for name, tensor in before.items():
        frozen = any(name.startswith(f"encoder.stages.{k}.") for k in range(stages))
        assert torch.equal(tensor, after[name]) == frozen, name


def test_frozen_stages_drop_nothing() -> None:
    model = prepare_model(small_model(drop_path=0.5), recipe_for(Path(), frozen_stages=2), CPU)
    assert [stage.training for stage in model.encoder.stages] == [False, False, True, True]  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in model.encoder.stages[:2].parameters())  # type: ignore[index]


def test_a_frozen_norm_keeps_its_statistics(small_data: Path, tmp_path: Path) -> None:
    train(recipe_for(small_data, frozen_norm=True), tmp_path / "run", reporter=QUIET)
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

    def watched(fabric: Fabric, module: Any, *rest: Any) -> torch.Tensor:
        loss = step(fabric, module, *rest)
        seen.append(module.model.decoder.classifier.weight.detach().clone())
        return loss

    monkeypatch.setattr(loop, "optimizer_step", watched)
    recipe = recipe_for(small_data, ema=0.75, eval_every=4, steps=4)
    result = train(recipe, tmp_path / "run", reporter=QUIET)
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.75 * expected + 0.25 * weight
    best, last = load(tmp_path / "run" / "best"), load(tmp_path / "run" / "last")
    torch.testing.assert_close(best.decoder.classifier.weight, expected)  # type: ignore[union-attr]
    assert torch.equal(last.decoder.classifier.weight, seen[-1])  # type: ignore[union-attr]
    assert score(best, open_data(recipe.data), workers=0).miou == result.best_miou


def test_an_averaged_run_resumes_exactly(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data, ema=0.9)
    train(recipe, tmp_path / "whole", reporter=QUIET)
    evaluate = loop.Journal.evaluated
    with pytest.MonkeyPatch.context() as patch:

        def stop(journal: Any, step: int, *rest: Any) -> None:
            evaluate(journal, step, *rest)
            loop.signal.raise_signal(loop.signal.SIGTERM)

        patch.setattr(loop.Journal, "evaluated", stop)
        assert train(recipe, tmp_path / "parts", reporter=QUIET).step == 2
    train(recipe, tmp_path / "parts", resume=True, reporter=QUIET)
    for name in ("best", "last"):
        ours, theirs = (load(tmp_path / run / name).state_dict() for run in ("whole", "parts"))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_training_ends_for_want_of_progress(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score, mious = segmentation.score, iter([0.3, 0.5, 0.4, 0.5, 0.45, 0.9])

    def scripted(*arguments: Any, **options: Any) -> Any:
        scores = score(*arguments, **options)
        miou = next(mious)
        monkeypatch.setattr(type(scores), "miou", property(lambda _: miou))
        return scores

    monkeypatch.setattr(segmentation, "score", scripted)
    recipe = recipe_for(small_data, steps=20, eval_every=1, patience=3)
    result = train(recipe, tmp_path / "run", reporter=QUIET)
    assert (result.step, result.best_step, result.best_miou, result.interrupted) == (5, 2, 0.5, None)
    again = train(recipe, tmp_path / "run", resume=True, reporter=QUIET)  # it had ended, and stays so
    assert (again.step, again.best_step) == (5, 2)


def test_class_weights_are_counted(small_data: Path) -> None:
    source = open_data(str(small_data))
    pixels = count_pixels(source, source.samples("train"))
    masks = np.stack([np.asarray(Image.open(p)) for p in (small_data / "masks/train").iterdir()])
    assert pixels == [int((masks == k).sum()) for k in range(3)]
    raw = np.array(pixels) ** -0.5
    assert class_weights_of(recipe_for(small_data, balanced=True), source) == pytest.approx((raw / raw.mean()).round(2))
    assert class_weights_of(recipe_for(small_data), source) is None
    assert class_weights_of(recipe_for(small_data, class_weights=(1.0, 2.0, 3.0)), source) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    "changes", [{"loss": "ohem"}, {"loss": "focal"}, {"dice": 0.5}, {"loss": "focal", "dice": 1.0, "balanced": True}]
)
def test_other_losses_learn(small_data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = recipe_for(small_data, steps=40, eval_every=40, decoder_lr_factor=1.0, micro_batch_size=2, **changes)
    result = train(recipe, tmp_path / "run", reporter=QUIET)
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
    result = train(recipe, tmp_path / "run", reporter=QUIET)
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
    with pytest.raises(UserError, match=r"model\.binary needs two classes, got 3"):
        train(recipe_for(small_data, model={"binary": True}), tmp_path / "run", reporter=QUIET)


def test_deterministic_algorithms_are_asked_for_within_the_run(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, asked = loop.optimizer_step, []

    def watched(*arguments: Any) -> torch.Tensor:
        asked.append(torch.are_deterministic_algorithms_enabled())
        return step(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", watched)
    train(recipe_for(small_data, deterministic=True), tmp_path / "run", reporter=QUIET)
    assert asked == [True] * 4
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_a_compiled_run_learns_and_is_saved(small_data: Path, tmp_path: Path) -> None:
    still = {"dropout": 0.0, "drop_path": 0.0}  # compiled, dropout draws other numbers
    plain = train(recipe_for(small_data, model=still), tmp_path / "plain", reporter=QUIET)
    compiled = train(recipe_for(small_data, model=still, compile=True, ema=0.5), tmp_path / "run", reporter=QUIET)
    assert compiled.step == plain.step
    ours, theirs = ([m["loss"] for m in read_metrics(tmp_path / n) if "loss" in m] for n in ("plain", "run"))
    assert ours[:2] == pytest.approx(theirs[:2], rel=1e-3)
    assert load(tmp_path / "run" / "best").card.classes == tuple(CLASSES)


def test_more_frozen_stages_than_there_are() -> None:
    with pytest.raises(
        UserError, match=r"train\.frozen_stages must be at most 4, the number of stages of the encoder, got 5"
    ):
        prepare_model(small_model(), recipe_for(Path(), frozen_stages=5), CPU)


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


def test_the_cheap_look_comes_before_the_training(small_data: Path) -> None:
    recipe = replace(FOLDER_B0, data=replace(FOLDER_B0.data, root=str(small_data)))
    check_data(recipe, open_data(recipe.data))
    for name in ("003", "005"):
        Image.new("L", (10, 20)).save(small_data / "masks" / "train" / f"{name}.png")
    (small_data / "images" / "val" / "002.png").write_bytes(b"not an image")
    source = open_data(recipe.data)
    with pytest.raises(
        ValueError, match=r"002\.png: 1 image cannot be decoded.* \(the first of 2 faults\); see segformer"
    ):
        check_data(recipe, source)
    (small_data / "images" / "val" / "002.png").unlink()
    (small_data / "masks" / "val" / "002.png").unlink()
    with pytest.raises(ValueError, match=r"003\.png: 2 masks of another size than the image: expected 48 x 64"):
        check_data(recipe, open_data(recipe.data))


def test_training_images_are_decoded_as_the_recipe_says(small_data: Path, tmp_path: Path) -> None:
    data = replace(FOLDER_B0.data, root=str(small_data))
    assert training_decoding(replace(FOLDER_B0, data=data)).enough is None
    reduced = replace(FOLDER_B0, data=replace(data, reduced_decode=True, resize=(100, 50), ratio=(0.5, 1.5)))
    assert training_decoding(reduced).enough == (150, 75)
    kept = replace(FOLDER_B0, data=replace(data, cache=str(tmp_path / "cache")))
    plain, cached = (training_set(replace(FOLDER_B0, data=d), open_data(d)) for d in (data, kept.data))
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(plain[3, 4], cached[3, 4], strict=True))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2
