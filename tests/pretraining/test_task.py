import json
import math
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from segformer.checkpoints.fine_tuning import initialize
from segformer.checkpoints.model_folder import read_weights
from segformer.cli.main import main as cli
from segformer.config import IMAGENET_MEAN, IMAGENET_STD, from_json, to_json
from segformer.data.loading import generator_of
from segformer.errors import UserError
from segformer.models.build import build_model
from segformer.models.classifier import Classifier, build_classifier
from segformer.pretraining import task as pretraining
from segformer.pretraining.augmentation import Mixing, TestTransform, TrainTransform
from segformer.pretraining.imagenet import open_images
from segformer.pretraining.recipes import PRETRAIN_RECIPES, PretrainRecipe, find_pretrain_recipe
from segformer.pretraining.task import (
    RepeatedBatches,
    build_optimizer,
    evaluate,
    learning_rate,
    optimizer_step,
    parameter_groups,
    pretrain,
    steps_per_epoch,
    top_hits,
)
from segformer.training.run_folder import read_metrics

QUIET = Console(quiet=True)
PAPER = PRETRAIN_RECIPES["imagenet_b0"]
SMALL = PretrainRecipe(
    name="small",
    description="for tests",
    encoder="mit_b0",
    size=32,
    epochs=2,
    batch_size=8,
    warmup_epochs=1,
    base_lr=2e-2,
    log_every=1,
    workers=0,
)
COLORS = {"green": (40, 160, 60), "blue": (60, 80, 170), "red": (180, 60, 40)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On so small images more threads cost more than they give, above all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in colour, 16 images of 40 x 48 each to train on and 5 to evaluate on."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, number in (("train", 16), ("val", 5)):
        for name, color in COLORS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(number):
                noise = rng.normal(0, 30, (40, 48, 3)) + rng.normal(0, 15)
                image = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(image).save(root / split / name / f"{index}.png")
    return root


def trained(run: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(run / "last" / "trainer.pt", weights_only=True)["model"]
    return state


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = trained(first), trained(second)
    assert ours.keys() == theirs.keys()
    assert not [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]


def stop_after(steps: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run get a signal during a step."""
    step, calls = pretraining.optimizer_step, []

    def interrupted(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == steps:
            signal.raise_signal(number)
        return step(*arguments)

    monkeypatch.setattr(pretraining, "optimizer_step", interrupted)


@pytest.mark.parametrize("name", PRETRAIN_RECIPES)
def test_every_recipe_survives_its_json(name: str, tmp_path: Path) -> None:
    recipe = PRETRAIN_RECIPES[name]
    assert recipe.name == name
    assert recipe.description.endswith(".")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(to_json(recipe)))
    assert find_pretrain_recipe(str(path)) == recipe == find_pretrain_recipe(name)
    TrainTransform(recipe)
    with torch.device("meta"):
        model = build_classifier(recipe.encoder, drop_path=recipe.drop_path)
        assert model(torch.zeros(2, 3, recipe.size, recipe.size)).shape == (2, 1000)


def test_the_recipes_of_imagenet_are_pvtv2s() -> None:
    top1 = {"b0": "70.5", "b1": "78.7", "b2": "81.6", "b3": "83.1", "b4": "83.6", "b5": "83.8"}
    for size, figure in top1.items():
        recipe = PRETRAIN_RECIPES[f"imagenet_{size}"]
        assert (recipe.encoder, recipe.paper) == (f"mit_{size}", f"top-1 {figure} on val")
        assert recipe.drop_path == (0.3 if size in ("b3", "b4", "b5") else 0.1)
        assert recipe.lr == pytest.approx(1e-3)
        assert (recipe.epochs, recipe.size, recipe.weight_decay, recipe.repeats) == (300, 224, 0.05, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "mit_b7"}, "encoder must be one of"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"warmup_epochs": 300}, "warmup_epochs must be 0 or more and below epochs 300, got 300"),
        ({"size": 16}, "size must be at least 32"),
        ({"erasing": 1.5}, "erasing must be a probability, 0-1, got 1.5"),
        ({"base_lr": math.nan}, "base_lr must be positive, got nan"),
        ({"randaug": "m9"}, "randaug must be like rand-m9-mstd0.5-inc1, or None, got m9"),
        ({"ema": 1.0}, "ema must be between 0 and 1, or None, got 1.0"),
        ({"clip_grad": 0.0}, "clip_grad must be positive or None"),
        ({"micro_batch_size": 0}, "micro_batch_size must be at least 1 or None"),
    ],
)
def test_what_no_recipe_can_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PAPER, **change)


def test_a_wrong_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'imagenet_b'; did you mean 'imagenet_b"):
        find_pretrain_recipe("imagenet_b")
    with pytest.raises(UserError, match=r"mine\.json: no such recipe"):
        find_pretrain_recipe(str(tmp_path / "mine.json"))
    (tmp_path / "mine.json").write_text(json.dumps(to_json(PAPER) | {"epoch": 3}))
    with pytest.raises(ValueError, match=r"mine\.json: unknown field 'epoch'; did you mean 'epochs'"):
        find_pretrain_recipe(str(tmp_path / "mine.json"))
    with pytest.raises(ValueError, match="missing field 'encoder'"):
        from_json(PretrainRecipe, {"name": "x", "description": "y"})


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-6),
        (1, 1e-6 + (1e-3 - 1e-6) / 500),
        (250, (1e-6 + 1e-3) / 2),
        (500, 1e-5 + 0.99e-3 * (1 + math.cos(math.pi / 60)) / 2),  # 500 of 30,000: the cosine's 1/60
        (15_000, (1e-3 + 1e-5) / 2),
        (30_000, 1e-5),
    ],
)
def test_learning_rate_by_hand(step: int, expected: float) -> None:
    assert learning_rate(step, PAPER, per_epoch=100) == pytest.approx(expected, rel=1e-9)


def test_learning_rate_is_that_of_timm() -> None:
    from timm.scheduler.cosine_lr import CosineLRScheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PAPER.lr)
    schedule = CosineLRScheduler(
        optimizer, t_initial=3000, lr_min=1e-5, warmup_t=50, warmup_lr_init=1e-6, t_in_epochs=False
    )
    for step in range(0, 3000, 7):
        schedule.step_update(step)
        assert learning_rate(step, PAPER, per_epoch=10) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_steps_of_an_epoch() -> None:
    assert steps_per_epoch(1_281_167, PAPER) == 1251
    assert steps_per_epoch(10, PAPER) == 1


def test_norms_and_biases_are_not_decayed() -> None:
    model = build_classifier("mit_b0", num_classes=3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ({names[id(p)] for p in group["params"]} for group in parameter_groups(model, 0.05))
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert others == norms | {name for name in names.values() if name.endswith(".bias")}
    assert decayed == set(names.values()) - others
    assert {"head.weight", "encoder.stages.0.blocks.0.ffn.depthwise.weight"} <= decayed
    rows = [
        (group["lr"], group["weight_decay"], group["betas"]) for group in build_optimizer(model, PAPER).param_groups
    ]
    assert rows == [(PAPER.lr, 0.05, (0.9, 0.999)), (PAPER.lr, 0.0, (0.9, 0.999))]


def items(recipe: PretrainRecipe, num_samples: int, **options: int) -> list[list[tuple[int, int]]]:
    return list(RepeatedBatches(num_samples, recipe, **({"steps": 10} | options)))


def test_each_image_is_repeated_within_a_batch() -> None:
    recipe = replace(SMALL, batch_size=12, repeats=3)
    batches = items(recipe, 8)
    for batch in batches:
        assert sorted(Counter(index for _, index in batch).values()) == [3, 3, 3, 3]
    taken = [item for batch in batches for item in batch]
    assert len(set(taken)) == len(taken)  # no augmentation twice
    assert sorted(taken[:24]) == [
        (turn, index) for turn in range(3) for index in range(8)
    ]  # all images before any again
    assert {turn for turn, _ in taken[24:48]} == {3, 4, 5}
    assert [index for _, index in taken[:24:3]] != [index for _, index in taken[24:48:3]]


def test_where_the_batch_is_no_multiple_the_next_one_goes_on_with_the_repeats() -> None:
    batches = items(replace(SMALL, batch_size=4, repeats=3), 50)
    assert batches[0][3][1] == batches[1][0][1] == batches[1][1][1]
    assert [turn for turn, _ in batches[0]] == [0, 1, 2, 0]


@pytest.mark.parametrize("repeats", [1, 3])
def test_batches_are_a_function_of_seed_and_step(repeats: int) -> None:
    recipe = replace(SMALL, repeats=repeats)
    whole = items(recipe, 11)
    assert items(recipe, 11) == whole
    assert items(recipe, 11, start=7) == whole[7:]
    assert len(RepeatedBatches(11, recipe, steps=10, start=7)) == 3
    assert items(replace(recipe, seed=1), 11) != whole


def test_the_devices_share_a_batch() -> None:
    recipe = replace(SMALL, batch_size=12, repeats=3)
    shares = [items(recipe, 8, rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(items(recipe, 8)):
        first, second = (share[step] for share in shares)
        assert len(first) == len(second) == 6
        assert not set(first) & set(second)
        assert sorted(first + second) == sorted(batch)
        assert {index for _, index in first} == {index for _, index in second}  # the repeats are spread


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 60, 80), np.uint8))


def test_augmentation_is_a_function_of_its_generator_alone(image: Tensor) -> None:
    transform = TrainTransform(replace(PAPER, size=48, erasing=0.5))
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    first = [transform(image, generator_of(0, epoch, 7)) for epoch in range(6)]
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    again = pickle.loads(pickle.dumps(transform))  # as a worker may get it
    for epoch, sample in enumerate(first):
        assert (sample.shape, sample.dtype) == ((3, 48, 48), torch.float32)
        assert torch.equal(again(image, generator_of(0, epoch, 7)), sample)
        assert not torch.equal(first[epoch - 1], sample)


def test_with_everything_off_only_a_crop_and_a_flip_remain(image: Tensor) -> None:
    recipe = replace(PAPER, size=48, randaug=None, erasing=0.0, min_area=1.0)
    flat = image * 0 + torch.tensor([10, 100, 200], dtype=torch.uint8).view(3, 1, 1)
    expected = (torch.tensor([10.0, 100.0, 200.0]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    for transform in (TrainTransform(recipe), TestTransform(recipe)):
        result = transform(flat, generator_of(0))
        torch.testing.assert_close(result, expected.view(3, 1, 1).expand(3, 48, 48))
    assert (TrainTransform(replace(recipe, erasing=1.0))(flat, generator_of(0)) != expected.view(3, 1, 1)).any()


def test_at_test_the_centre_of_a_larger_size_is_taken(image: Tensor) -> None:
    result = TestTransform(replace(PAPER, size=42))(image, generator_of(0))
    pixels = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((64, 48), Image.Resampling.BICUBIC)
    centre = torch.from_numpy(np.array(pixels))[3:45, 11:53].permute(2, 0, 1)  # 42 / 0.875 = 48
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert ((result * std + mean) - centre.float()).abs().max() <= 1.01  # Pillow rounds between its two passes


@pytest.mark.parametrize(
    ("change", "off"),
    [
        ({}, 0.1 / 5),
        ({"cutmix": 0.0}, 0.1 / 5),
        ({"mixup": 0.0}, 0.1 / 5),
        ({"mixup": 0.0, "cutmix": 0.0}, 0.1 / 5),
        ({"mixup_prob": 0.0, "label_smoothing": 0.0}, 0.0),
    ],
)
def test_targets_sum_to_1_and_are_smooth(change: dict[str, Any], off: float) -> None:
    mixing, labels = Mixing(replace(PAPER, **change), 5), torch.tensor([0, 1, 1, 4])
    for seed in range(8):
        images, targets = mixing(torch.randn(4, 3, 32, 32), labels, seed)
        assert (images.shape, targets.shape) == ((4, 3, 32, 32), (4, 5))
        torch.testing.assert_close(targets.sum(1), torch.ones(4))
        torch.testing.assert_close(targets[:, 2:4], torch.full((4, 2), off))
        assert (targets[1, 1] - targets[2, 1]).abs() < 1e-6  # each the other's partner, of the same class


def test_mixing_is_a_function_of_its_seed() -> None:
    mixing, pictures, labels = Mixing(PAPER, 5), torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    first = [mixing(pictures.clone(), labels, seed) for seed in range(4)]
    for seed, (images, targets) in enumerate(first):
        again_images, again_targets = mixing(pictures.clone(), labels, seed)
        assert torch.equal(again_images, images)
        assert torch.equal(again_targets, targets)
    assert len({tuple(targets.flatten().tolist()) for _, targets in first}) == 4


def test_unmixed_targets_are_label_smoothing_by_the_book() -> None:
    mixing = Mixing(replace(PAPER, mixup_prob=0.0), 5)
    logits, labels = torch.randn(4, 5), torch.tensor([0, 1, 1, 4])
    _, targets = mixing(torch.zeros(4, 3, 32, 32), labels, 0)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(F.cross_entropy(logits, targets), expected)


def test_hits_by_hand() -> None:
    logits = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [9.0, 1, 2, 3, 4, 5, 6], [0.0, 6, 5, 4, 3, 2, 1]])
    assert top_hits(logits, torch.tensor([0, 1, 0])).tolist() == [1, 1]
    assert top_hits(logits, torch.tensor([6, 3, 1])).tolist() == [1, 3]
    assert top_hits(logits[:, :3], torch.tensor([0, 1, 2])).tolist() == [1, 3]  # fewer than five classes


class Brightest(nn.Module):
    """Says the class whose colour an image's mean is nearest to."""

    def forward(self, images: Tensor) -> Tensor:
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        colors = torch.tensor([COLORS[name] for name in sorted(COLORS)])
        return -torch.cdist(images.mean((2, 3)) * std + mean, colors.float())


def test_every_image_counts_once_over_the_processes(pictures: Path) -> None:
    samples = open_images(str(pictures)).samples("val")
    samples = [*samples[:14], (samples[14][0], 0)]  # 15 images, the last with a wrong label
    recipe, seen = replace(SMALL, batch_size=4), []
    model: Any = Brightest()
    alone = evaluate(Fabric(accelerator="cpu", devices=1), model, samples, recipe, lambda *n: seen.append(n))
    assert alone == {"top1": pytest.approx(14 / 15), "top5": 1.0}
    assert seen == [(4, 15), (8, 15), (12, 15), (15, 15)]
    parts = []

    class Part:
        """The process ``rank`` of four, which keeps its own count."""

        def __init__(self, rank: int) -> None:
            self.global_rank, self.world_size, self.device = rank, 4, torch.device("cpu")

        def to_device(self, batch: Any) -> Any:
            return batch

        def all_reduce(self, hits: Tensor, reduce_op: str) -> Tensor:
            assert reduce_op == "sum"
            parts.append(hits)
            return hits

    for rank in range(4):
        fabric: Any = Part(rank)
        evaluate(fabric, model, samples, recipe, lambda *_: None)
    assert sum(parts).tolist() == [14, 15]  # type: ignore[union-attr]


def test_gradients_are_accumulated_and_clipped() -> None:
    torch.manual_seed(0)
    images, targets = torch.randn(6, 3, 32, 32), torch.rand(6, 4).softmax(1)
    results = []
    for change in ({}, {"micro_batch_size": 4}, {"clip_grad": 1e-3}):
        recipe = replace(SMALL, **change)
        torch.manual_seed(0)
        model = build_classifier("mit_b0", 4, drop_path=0.0)
        fabric = Fabric(accelerator="cpu", devices=1)
        wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
        before = model.head.bias.detach().clone()
        loss = optimizer_step(fabric, wrapped, optimizer, images, targets, recipe)
        results.append((loss.item(), model.head.bias.detach() - before))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)
    assert results[2][1].norm() < 1e-3 < results[0][1].norm()


def test_a_run_learns_and_hands_its_encoder_over(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(
        SMALL,
        root=str(pictures),
        epochs=5,
        eval_every=2,
        repeats=1,
        mixup=0.0,
        randaug="rand-m3-n1-inc1",
        drop_path=0.0,
    )
    result = pretrain(recipe, tmp_path / "run", device="cpu", console=QUIET)
    assert (result.run_dir, result.epoch, result.interrupted) == (tmp_path / "run", 5, None)
    assert result.best_top1 > 0.8  # a guess is 1/3
    names = {"recipe.json", "manifest.json", "metrics.jsonl", "last", "best", "tensorboard"}
    assert {path.name for path in result.run_dir.iterdir()} == names
    lines = read_metrics(result.run_dir)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 31))
    assert all(math.isfinite(line["loss"]) and line["images_per_second"] > 0 for line in lines if "loss" in line)
    scores = {line["epoch"]: line["val/top1"] for line in lines if "val/top1" in line}
    assert list(scores) == [2, 4, 5]
    assert max(scores.values()) == result.best_top1
    manifest = json.loads((result.run_dir / "manifest.json").read_text())
    assert manifest["data"] == {"name": str(pictures), "images": {"train": 48, "val": 15}, "classes": 3}

    best = result.run_dir / "best"
    facts = json.loads((best / "provenance.json").read_text())
    assert facts["classes"] == ["blue", "green", "red"]
    assert facts["val"]["top1"] == scores[facts["epoch"]] == result.best_top1
    weights = read_weights(best)
    assert (weights.config.encoder, weights.card) == ("mit_b0", None)
    model = build_model("mit_b0", num_classes=7)
    initialize(model, weights)
    cli.main(["info", str(best)])
    assert "an encoder alone: encoder mit_b0" in " ".join(capsys.readouterr().out.split())
    state = torch.load(result.run_dir / "last" / "trainer.pt", weights_only=True)
    if facts["epoch"] == 5:
        for name, tensor in model.encoder.state_dict().items():
            assert torch.equal(tensor, state["model"][f"encoder.{name}"])


def test_training_from_the_best_encoder_starts_with_exactly_its_weights(
    pictures: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole of ``segformer train``, up to its first step."""
    recipe = replace(SMALL, root=str(pictures), epochs=1, warmup_epochs=0)
    pretrain(recipe, tmp_path / "run", device="cpu", console=QUIET)
    from segformer.training import run as loop

    seen: list[dict[str, Tensor]] = []

    def steps(run: Any, *_: Any) -> None:
        seen.append({name: tensor.clone() for name, tensor in run.model.encoder.state_dict().items()})
        raise ValueError("enough")

    monkeypatch.setattr(loop.Run, "steps", steps)
    options = ["--train.init-from", str(tmp_path / "run" / "best"), "--train.workers", "0", "--device", "cpu"]
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", str(small_data), "--run-dir", str(tmp_path / "next"), *options])
    (encoder,), expected = seen, trained(tmp_path / "run")
    assert {f"encoder.{name}" for name in encoder} == {name for name in expected if name.startswith("encoder.")}
    assert all(torch.equal(tensor, expected[f"encoder.{name}"]) for name, tensor in encoder.items())


def test_interrupted_and_resumed_the_weights_are_the_same_bit_for_bit(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMALL, root=str(pictures), batch_size=16, eval_every=1, ema=0.5, clip_grad=5.0)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    whole = pretrain(recipe, tmp_path / "whole", device="cpu", console=QUIET)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's
    with monkeypatch.context() as patch:
        stop_after(4, signal.SIGTERM, patch)
        result = pretrain(recipe, tmp_path / "parts", device="cpu", console=QUIET)
    assert (result.epoch, result.interrupted) == (1, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    np.random.seed(9)  # noqa: NPY002  # what the process did in between has no say
    resumed = pretrain(recipe, tmp_path / "parts", resume=True, device="cpu", console=QUIET)
    assert (resumed.epoch, resumed.best_top1) == (2, whole.best_top1)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    for name in ("best/encoder.safetensors", "best/provenance.json", "recipe.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert [m["step"] for m in read_metrics(tmp_path / "parts") if "loss" in m] == list(range(1, 7))
    again = pretrain(recipe, tmp_path / "parts", resume=True, device="cpu", console=QUIET)
    assert again == resumed  # nothing is left to do
    with pytest.raises(ValueError, match=r"base_lr was 0\.02, is 0\.5"):
        pretrain(replace(recipe, base_lr=0.5), tmp_path / "parts", resume=True, device="cpu", console=QUIET)
    with pytest.raises(UserError, match="--resume"):
        pretrain(recipe, tmp_path / "parts", device="cpu", console=QUIET)
    with pytest.raises(UserError, match="leave out --resume"):
        pretrain(recipe, tmp_path / "nowhere", resume=True, device="cpu", console=QUIET)


def test_an_evaluation_that_a_signal_interrupts_is_made_up_for(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMALL, root=str(pictures), batch_size=24, epochs=1, warmup_epochs=0)
    evaluating = pretraining.PretrainJournal.evaluating

    def interrupted(journal: Any, done: int, total: int) -> None:
        evaluating(journal, done, total)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.PretrainJournal, "evaluating", interrupted)
        result = pretrain(recipe, tmp_path / "run", device="cpu", console=QUIET)
    assert (result.epoch, result.best_top1, result.interrupted) == (1, -1.0, signal.SIGINT)
    assert not (tmp_path / "run" / "best").exists()
    assert pretrain(recipe, tmp_path / "run", resume=True, device="cpu", console=QUIET).best_top1 >= 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 7}, "batch_size must be a multiple of 2 on 1 devices, got 7"),
        ({"root": "no/such/folder"}, "no data folder at 'no/such/folder'"),
    ],
)
def test_what_can_not_be_started_leaves_no_folder(
    pictures: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    recipe = replace(SMALL, **({"root": str(pictures)} | change))
    with pytest.raises(UserError, match=message):
        pretrain(recipe, tmp_path / "run", device="cpu", console=QUIET)
    assert not (tmp_path / "run").exists()


def test_without_val_there_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "data/train/a").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "data/train/a/0.png")
    with pytest.raises(ValueError, match="has no split 'val'; it has train"):
        pretrain(replace(SMALL, root=str(tmp_path / "data")), tmp_path / "run", device="cpu", console=QUIET)


def test_without_timm_it_is_the_module_that_is_named(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        pretrain(replace(SMALL, root=str(pictures)), tmp_path / "run", device="cpu", console=QUIET)
    assert (raised.value.name or "").partition(".")[0] == "timm"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("log_every", "step"), [(1, 0), (50, 5)])
def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int, step: int
) -> None:
    monkeypatch.setattr(pretraining, "optimizer_step", lambda *_: torch.tensor(float("nan")))
    recipe = replace(SMALL, root=str(pictures), log_every=log_every)
    with pytest.raises(ValueError, match=f"the loss became nan at step {step}; lower base_lr"):
        pretrain(recipe, tmp_path / "run", device="cpu", console=QUIET)
    assert not (tmp_path / "run" / "last").exists()


def test_other_images_are_not_gone_on_with(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    recipe = replace(SMALL, root=str(tmp_path / "data"), batch_size=48, epochs=1, warmup_epochs=0)
    pretrain(recipe, tmp_path / "run", device="cpu", console=QUIET)
    (tmp_path / "data/train/red/0.png").unlink()
    with pytest.raises(ValueError, match=r"the run began with .*'train': 48.*, now there is .*'train': 47"):
        pretrain(recipe, tmp_path / "run", resume=True, device="cpu", console=QUIET)


SCRIPT = """
import sys
from segformer.pretraining.task import pretrain
result = pretrain(sys.argv[1], sys.argv[2], device="cpu", devices=2)
print("RESULT", result.best_top1)
"""


@pytest.mark.slow
def test_two_processes_come_to_what_one_does(pictures: Path, tmp_path: Path) -> None:
    recipe = replace(SMALL, root=str(pictures), mixup_prob=0.0, drop_path=0.0, base_lr=1e-3, epochs=1, warmup_epochs=0)
    (tmp_path / "recipe.json").write_text(json.dumps(to_json(recipe)))
    (tmp_path / "script.py").write_text(SCRIPT)
    alone = pretrain(recipe, tmp_path / "one", device="cpu", console=QUIET)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "recipe.json"), str(tmp_path / "two")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    assert float(done.stdout.split("RESULT ")[1].split()[0]) == pytest.approx(alone.best_top1, abs=1 / 15)
    for name, tensor in trained(tmp_path / "one").items():
        torch.testing.assert_close(trained(tmp_path / "two")[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_the_kept_file_is_that_of_the_authors(tmp_path: Path) -> None:
    from formats.test_nvlabs import encoder_shapes

    model: Classifier = build_classifier("mit_b0", num_classes=1000)
    state = pretraining.encoder_state(model)
    shapes = encoder_shapes() | {"head.weight": (1000, 256), "head.bias": (1000,)}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes
