import json
import math
import os
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
from torch import Tensor

from pretraining_runs import SMALL, write_pictures
from segformer.checkpoints.fine_tuning import initialize
from segformer.checkpoints.model_folder import read_weights
from segformer.cli.main import main
from segformer.errors import UserError
from segformer.json_config import to_json
from segformer.models.build import build_model
from segformer.models.classifier import Classifier, build_classifier
from segformer.pretraining.imagenet import open_images
from segformer.pretraining.recipes import PRETRAIN_RECIPES, PretrainRecipe
from segformer.pretraining.task import (
    ImageNetTask,
    count_steps,
    encoder_state,
    images_fingerprint,
    pretrain,
    pretraining_plan,
)
from segformer.training import run as loop
from segformer.training.loader import StepBatches
from segformer.training.run_folder import read_metrics
from segformer.training.step import optimizer_step
from small_runs import QUIET, assert_same_weights, last_weights, stop_in_evaluation, stop_in_step

PAPER = PRETRAIN_RECIPES["imagenet_b0"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On so small images more threads cost more than they give, above all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_the_plan_counts_epochs_in_steps() -> None:
    assert count_steps(1_281_167, PAPER.batch_size) == 1251
    assert count_steps(10, PAPER.batch_size) == 1
    plan = pretraining_plan(replace(PAPER, eval_every=3, patience=4), steps_per_epoch=100)
    assert (plan.steps, plan.eval_every, plan.patience) == (30_000, 300, 4)


def test_the_learning_rate_warms_up_by_epochs(pictures: Path) -> None:
    task = ImageNetTask(replace(SMALL, root=str(pictures)))  # 6 steps an epoch, 1 of 2 epochs warm-up
    recipe = task.recipe
    assert task.steps_per_epoch == 6
    assert task.learning_rate(0) == recipe.warmup_lr
    assert task.learning_rate(3) == pytest.approx((recipe.warmup_lr + recipe.lr) / 2)
    assert task.learning_rate(6) == pytest.approx((recipe.min_lr + recipe.lr) / 2)  # half of the cosine
    assert task.counter(7) == ("epoch", 1)


def test_the_fingerprint_is_of_names_and_classes(pictures: Path, tmp_path: Path) -> None:
    fingerprint = images_fingerprint(open_images(str(pictures)))
    shutil.copytree(pictures, tmp_path / "copy")
    assert images_fingerprint(open_images(str(tmp_path / "copy"))) == fingerprint
    (tmp_path / "copy/val/red/0.png").rename(tmp_path / "copy/val/blue/9.png")
    assert images_fingerprint(open_images(str(tmp_path / "copy"))) != fingerprint


def items(recipe: PretrainRecipe, num_samples: int, **options: int) -> list[list[tuple[int, int]]]:
    values = {"steps": 10, "batch_size": recipe.batch_size, "seed": recipe.seed, "repeats": recipe.repeats}
    return list(StepBatches(num_samples, **(values | options)))


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


@pytest.mark.parametrize("repeats", [1, 3])
def test_batches_are_a_function_of_seed_and_step(repeats: int) -> None:
    recipe = replace(SMALL, repeats=repeats)
    whole = items(recipe, 11)
    assert items(recipe, 11) == whole
    assert items(recipe, 11, start=7) == whole[7:]
    assert items(replace(recipe, seed=1), 11) != whole


def test_the_devices_share_a_batch() -> None:
    recipe = replace(SMALL, batch_size=12, repeats=3)
    shares = [items(recipe, 8, rank=rank, world_size=2) for rank in range(2)]
    for step, batch in enumerate(items(recipe, 8)):
        first, second = (share[step] for share in shares)
        assert len(first) == len(second) == 6
        assert not set(first) & set(second)
        assert sorted(first + second) == sorted(batch)
        assert {index for _, index in first} == {index for _, index in second}  # the repeats are spread


def test_gradients_are_accumulated_and_clipped(pictures: Path) -> None:
    torch.manual_seed(0)
    images, targets = torch.randn(6, 3, 32, 32), torch.rand(6, 4).softmax(1)
    results = []
    for change in ({}, {"micro_batch_size": 4}, {"clip_grad": 1e-3}):
        task = ImageNetTask(replace(SMALL, root=str(pictures), **change))  # type: ignore[arg-type]
        torch.manual_seed(0)
        model = build_classifier("mit_b0", 4, drop_path=0.0)
        fabric = Fabric(accelerator="cpu", devices=1)
        wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
        before = model.head.bias.detach().clone()
        loss = optimizer_step(fabric, wrapped, optimizer, (images, targets), task)
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
    result = pretrain(recipe, tmp_path / "run", device="cpu", reporter=QUIET)
    assert (result.run_dir, result.epoch, result.interrupted) == (tmp_path / "run", 5, None)
    assert result.best_top1 > 0.8  # a guess is 1/3
    names = {"recipe.json", "manifest.json", "metrics.jsonl", "last", "best", "tensorboard", "report.html"}
    assert {path.name for path in result.run_dir.iterdir()} == names
    lines = read_metrics(result.run_dir)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 31))
    assert all(math.isfinite(line["loss"]) and line["images_per_second"] > 0 for line in lines if "loss" in line)
    scores = {line["epoch"]: line["val/top1"] for line in lines if "val/top1" in line}
    assert list(scores) == [2, 4, 5]
    assert max(scores.values()) == result.best_top1
    manifest = json.loads((result.run_dir / "manifest.json").read_text())
    assert manifest["data"].pop("fingerprint")
    assert manifest["data"] == {
        "name": str(pictures), "images": {"train": 48, "val": 15}, "classes": ["blue", "green", "red"]
    }  # fmt: skip
    assert {"timm", "device", "processes", "started_at_step", "versions", "commit", "platform"} <= manifest.keys()

    best = result.run_dir / "best"
    facts = json.loads((best / "provenance.json").read_text())
    assert facts["classes"] == ["blue", "green", "red"]
    assert facts["val"]["top1"] == scores[facts["epoch"]] == result.best_top1
    weights = read_weights(best)
    assert (weights.config.encoder, weights.card) == ("mit_b0", None)
    model = build_model("mit_b0", num_classes=7)
    initialize(model, weights)
    main(["info", str(best)])
    assert "an encoder without decoder: encoder mit_b0" in " ".join(capsys.readouterr().out.split())
    state = torch.load(result.run_dir / "last" / "trainer.pt", weights_only=True)
    if facts["epoch"] == 5:
        for name, tensor in model.encoder.state_dict().items():
            assert torch.equal(tensor, state["model"][f"encoder.{name}"])


def test_training_from_the_best_encoder_starts_with_exactly_its_weights(
    pictures: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole of ``segformer train``, up to its first step."""
    recipe = replace(SMALL, root=str(pictures), epochs=1, warmup_epochs=0)
    pretrain(recipe, tmp_path / "run", device="cpu", reporter=QUIET)
    seen: list[dict[str, Tensor]] = []

    def steps(run: Any, *_: Any) -> None:
        seen.append({name: tensor.clone() for name, tensor in run.model.encoder.state_dict().items()})
        raise ValueError("enough")

    monkeypatch.setattr(loop.Run, "steps", steps)
    options = ["--train.init-from", str(tmp_path / "run" / "best"), "--train.workers", "0", "--device", "cpu"]
    with pytest.raises(SystemExit):
        main(["train", "--data", str(small_data), "--run-dir", str(tmp_path / "next"), *options])
    (encoder,), expected = seen, last_weights(tmp_path / "run")
    assert {f"encoder.{name}" for name in encoder} == {name for name in expected if name.startswith("encoder.")}
    assert all(torch.equal(tensor, expected[f"encoder.{name}"]) for name, tensor in encoder.items())


def test_interrupted_and_resumed_the_weights_are_the_same_bit_for_bit(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMALL, root=str(pictures), batch_size=16, eval_every=1, ema=0.5, clip_grad=5.0)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    whole = pretrain(recipe, tmp_path / "whole", device="cpu", reporter=QUIET)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's
    with monkeypatch.context() as patch:
        stop_in_step(4, signal.SIGTERM, patch)
        result = pretrain(recipe, tmp_path / "parts", device="cpu", reporter=QUIET)
    assert (result.epoch, result.interrupted) == (1, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    np.random.seed(9)  # noqa: NPY002  # what the process did in between has no say
    resumed = pretrain(recipe, tmp_path / "parts", resume=True, device="cpu", reporter=QUIET)
    assert (resumed.epoch, resumed.best_top1) == (2, whole.best_top1)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    for name in ("best/encoder.safetensors", "best/provenance.json", "recipe.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert [m["step"] for m in read_metrics(tmp_path / "parts") if "loss" in m] == list(range(1, 7))
    again = pretrain(recipe, tmp_path / "parts", resume=True, device="cpu", reporter=QUIET)
    assert again == resumed  # nothing is left to do
    with pytest.raises(ValueError, match=r"base_lr was 0\.02, is now 0\.5"):
        pretrain(replace(recipe, base_lr=0.5), tmp_path / "parts", resume=True, device="cpu", reporter=QUIET)
    with pytest.raises(UserError, match="--resume"):
        pretrain(recipe, tmp_path / "parts", device="cpu", reporter=QUIET)
    with pytest.raises(UserError, match="leave out --resume"):
        pretrain(recipe, tmp_path / "nowhere", resume=True, device="cpu", reporter=QUIET)


def test_an_evaluation_that_a_signal_interrupts_is_made_up_for(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SMALL, root=str(pictures), batch_size=24, epochs=1, warmup_epochs=0)
    with monkeypatch.context() as patch:
        stop_in_evaluation(signal.SIGINT, patch)
        result = pretrain(recipe, tmp_path / "run", device="cpu", reporter=QUIET)
    assert (result.epoch, result.best_top1, result.interrupted) == (1, -1.0, signal.SIGINT)
    assert not (tmp_path / "run" / "best").exists()
    assert pretrain(recipe, tmp_path / "run", resume=True, device="cpu", reporter=QUIET).best_top1 >= 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 7}, "batch_size must be a multiple of 2 on 1 devices, got 7"),
        ({"encoder": "mit_b7"}, "encoder must be one of .*did you mean 'mit_b"),
        ({"root": "no/such/folder"}, "no data folder at 'no/such/folder'"),
    ],
)
def test_what_cannot_be_started_leaves_no_folder(
    pictures: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    recipe = replace(SMALL, **({"root": str(pictures)} | change))
    with pytest.raises(UserError, match=message):
        pretrain(recipe, tmp_path / "run", device="cpu", reporter=QUIET)
    assert not (tmp_path / "run").exists()


def test_without_val_there_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "data/train/a").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "data/train/a/0.png")
    with pytest.raises(ValueError, match="has no split 'val'; it has train"):
        pretrain(replace(SMALL, root=str(tmp_path / "data")), tmp_path / "run", device="cpu", reporter=QUIET)


def test_without_timm_it_is_the_module_that_is_named(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        pretrain(replace(SMALL, root=str(pictures)), tmp_path / "run", device="cpu", reporter=QUIET)
    assert (raised.value.name or "").partition(".")[0] == "timm"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("log_every", "step"), [(1, 0), (50, 5)])
def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int, step: int
) -> None:
    monkeypatch.setattr(loop, "optimizer_step", lambda *_: torch.tensor(float("nan")))
    recipe = replace(SMALL, root=str(pictures), log_every=log_every)
    with pytest.raises(ValueError, match=f"the loss became nan at step {step}; lower base_lr"):
        pretrain(recipe, tmp_path / "run", device="cpu", reporter=QUIET)
    assert not (tmp_path / "run" / "last").exists()


def test_a_run_does_not_resume_with_other_images(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    recipe = replace(SMALL, root=str(tmp_path / "data"), batch_size=48, epochs=1, warmup_epochs=0)
    pretrain(recipe, tmp_path / "run", device="cpu", reporter=QUIET)
    (tmp_path / "data/train/red/0.png").unlink()
    with pytest.raises(ValueError, match=r"the run began with .*'train': 48.*, now there is .*'train': 47"):
        pretrain(recipe, tmp_path / "run", resume=True, device="cpu", reporter=QUIET)


def test_the_kept_file_is_that_of_the_authors(tmp_path: Path) -> None:
    from checkpoints.formats.test_nvlabs import encoder_shapes

    model: Classifier = build_classifier("mit_b0", num_classes=1000)
    state = encoder_state(model)
    shapes = encoder_shapes() | {"head.weight": (1000, 256), "head.bias": (1000,)}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


def test_training_ends_for_want_of_progress(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.75, 0.75, 0.5, 1.0])
    monkeypatch.setattr("segformer.pretraining.task.measure_accuracy", lambda *_: {"top1": next(scores), "top5": 1.0})
    recipe = replace(SMALL, root=str(pictures), batch_size=48, epochs=5, patience=2)
    result = pretrain(recipe, tmp_path / "run", device="cpu", reporter=QUIET)
    assert (result.epoch, result.best_top1, result.interrupted) == (4, 0.75, None)


def run(*arguments: object) -> None:
    command = [sys.executable, "-m", "segformer", "pretrain", *map(str, arguments), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_one_process_and_two_are_the_same_run_also_when_it_resumes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is mixed or dropped: each process would draw its own random numbers.
    recipe = replace(SMALL, root=str(pictures), mixup_prob=0.0, drop_path=0.0, base_lr=1e-3, ema=0.5)
    (tmp_path / "recipe.json").write_text(json.dumps(to_json(recipe)))
    pretrain(recipe, tmp_path / "one", device="cpu", reporter=QUIET)
    run(tmp_path / "recipe.json", "--run-dir", tmp_path / "two", "--devices", "2")
    with monkeypatch.context() as patch:
        stop_in_step(8, signal.SIGTERM, patch)
        pretrain(recipe, tmp_path / "mixed", device="cpu", reporter=QUIET)
    run(f"--run-dir={tmp_path / 'mixed'}", "--resume", "--devices", "2")
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / name) if "loss" in line] for name in ("one", "two", "mixed")
    ]
    assert len(losses[0]) == 12
    expected = last_weights(tmp_path / "one")
    for name, other in (("two", losses[1]), ("mixed", losses[2])):
        assert other == pytest.approx(losses[0], rel=1e-3)
        for key, tensor in last_weights(tmp_path / name).items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-3, atol=1e-4, msg=key)
        assert json.loads((tmp_path / name / "manifest.json").read_text())["processes"] == 2
