import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from safetensors.torch import load_file

import segformer
from segformer.checkpoints.model_folder import load, save
from segformer.config import DataConfig, Preprocessing, Recipe, TrainConfig
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.evaluation.evaluate import score
from segformer.models.build import build_model, model_config
from segformer.training import run as loop
from segformer.training.optim import build_optimizer
from segformer.training.run import optimizer_step, train
from segformer.training.run_folder import RunFolder, read_metrics

QUIET = Console(quiet=True)


def recipe_for(root: Path, **changes: object) -> Recipe:
    train_config = TrainConfig(
        steps=8, batch_size=4, lr=1e-3, warmup_steps=2, eval_every=4, log_every=1, workers=0, decoder_lr_factor=1.0
    )
    return Recipe(
        name="small",
        description="for tests",
        model=model_config("mit_b0", decoder_channels=32),
        data=DataConfig(root=str(root), resize=(64, 48), crop=(40, 48)),
        preprocessing=Preprocessing(long_side=64, short_side=48),
        train=replace(train_config, **changes),  # type: ignore[arg-type]
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / "model.safetensors")


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    different = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert not different


def test_a_run_leaves_what_it_should(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(recipe_for(small_data), run, console=QUIET)
    assert result.step == 8
    assert result.interrupted is None
    assert {p.name for p in run.iterdir()} == {
        "recipe.json", "manifest.json", "metrics.jsonl", "last", "best", "tensorboard", "report.html"
    }  # fmt: skip
    lines = read_metrics(run)
    assert [m["step"] for m in lines if "loss" in m] == list(range(1, 9))
    assert all(math.isfinite(m["loss"]) and m["images_per_second"] > 0 for m in lines if "loss" in m)
    evaluations = {m["step"]: m["val/mIoU"] for m in lines if "val/mIoU" in m}
    assert list(evaluations) == [4, 8]
    assert result.best_miou == max(evaluations.values())
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["versions"]["segformer"] == segformer.__version__
    assert manifest["data"]["images"] == {"train": 10, "val": 4}
    assert list((run / "tensorboard").glob("events*"))


def test_evaluating_the_best_model_gives_the_logged_figure(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data)
    result = train(recipe, tmp_path / "run", console=QUIET)
    best = load(tmp_path / "run" / "best")
    assert best.card.provenance["step"] == result.best_step
    assert best.card.provenance["recipe"] == "small"
    assert best.card.classes == ("ground", "disc", "square")
    assert score(best, open_data(recipe.data), workers=0).miou == result.best_miou


def test_training_learns(small_data: Path, tmp_path: Path) -> None:
    result = train(recipe_for(small_data, steps=60, eval_every=60), tmp_path / "run", console=QUIET)
    assert result.best_miou > 0.6


def test_the_seed_decides_everything(small_data: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.manual_seed(len(name))  # the caller's random state has no say, and is left alone
        state = torch.get_rng_state()
        train(recipe_for(small_data, seed=seed), tmp_path / name, console=QUIET)
        assert torch.equal(torch.get_rng_state(), state)
    assert_same(tmp_path / "first", tmp_path / "again")
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "first", tmp_path / "other")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resuming_ends_the_same(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    recipe = recipe_for(small_data)
    train(recipe, tmp_path / "whole", console=QUIET)
    step = loop.optimizer_step
    calls = []

    def interrupted_step(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(number)
        return step(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimizer_step", interrupted_step)
        result = train(recipe, tmp_path / "parts", console=QUIET)
    assert (result.step, result.interrupted) == (3, number)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = train(recipe, tmp_path / "parts", resume=True, console=QUIET)
    assert resumed.step == 8
    assert_same(tmp_path / "whole", tmp_path / "parts")
    steps = [m["step"] for m in read_metrics(tmp_path / "parts") if "loss" in m]
    assert steps == list(range(1, 9))


def test_killed_with_two_workers_and_resumed_the_weights_are_the_same_bit_for_bit(
    small_data: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "segformer", "train", "--data", str(small_data), "--data.resize", "64", "48"]
    command += ["--data.crop", "40", "48", "--train.steps", "24", "--train.batch-size", "4", "--train.eval-every", "6"]
    command += ["--train.log-every", "1", "--train.workers", "2", "--model.decoder-channels", "32"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([*command, "--run-dir", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, "--run-dir", str(parts)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(m["step"] >= 9 for m in read_metrics(parts)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((parts / "last" / "config.json").read_text())["provenance"]["step"] < 24
    resume = [*command[:4], "--run-dir", str(parts), "--resume"]
    subprocess.run(resume, check=True, capture_output=True)
    assert_same(whole, parts)


def test_resuming_a_finished_run_changes_nothing(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data)
    first = train(recipe, tmp_path / "run", console=QUIET)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    again = train(recipe, tmp_path / "run", resume=True, console=QUIET)
    assert again.best_miou == first.best_miou
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_an_existing_run_is_never_overwritten(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--resume"):
        train(recipe_for(small_data), tmp_path / "run", console=QUIET)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_resume_refuses_a_changed_recipe(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data, steps=2)
    train(recipe, tmp_path / "run", console=QUIET)
    with pytest.raises(ValueError, match=r"train\.lr was 0\.001, is 0\.1"):
        train(recipe_for(small_data, steps=2, lr=0.1), tmp_path / "run", resume=True, console=QUIET)
    with pytest.raises(UserError, match="leave out --resume"):
        train(recipe, tmp_path / "elsewhere", resume=True, console=QUIET)


def test_gradients_are_accumulated_to_the_effective_batch(small_data: Path) -> None:
    # The norm is frozen: its statistics are those of a micro-batch otherwise.
    torch.manual_seed(0)
    images, masks = torch.randn(8, 3, 40, 48), torch.randint(0, 3, (8, 40, 48), dtype=torch.uint8)
    masks[:3] = 255  # so that micro-batches have different numbers of valid pixels
    results = []
    for micro_batch_size in (None, 2, 3):
        recipe = recipe_for(small_data, batch_size=8, micro_batch_size=micro_batch_size, loss_average="valid")
        torch.manual_seed(0)
        model = build_model("mit_b0", num_classes=3, decoder_channels=32, drop_path=0.0).eval()
        fabric = Fabric(accelerator="cpu", devices=1)
        wrapped, optimizer = fabric.setup(model, build_optimizer(model, recipe.train))
        loss = optimizer_step(fabric, wrapped, optimizer, (images, masks), recipe, None)
        results.append((loss.item(), model.decoder.classifier.weight.detach().clone()))
    for loss_value, weight in results[1:]:
        assert loss_value == pytest.approx(results[0][0], rel=1e-5)
        torch.testing.assert_close(weight, results[0][1], rtol=1e-3, atol=1e-5)


def test_bf16_and_class_weights_train(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data, steps=2, precision="bf16", class_weights=(1.0, 2.0, 3.0), loss_average="all")
    assert math.isfinite(train(recipe, tmp_path / "run", console=QUIET).best_miou)


def test_what_does_not_fit_the_data_is_said_before_training(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.class_weights must have 3 values, got 2"):
        train(recipe_for(small_data, class_weights=(1.0, 2.0)), tmp_path / "run", console=QUIET)
    recipe = recipe_for(small_data)
    with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
        train(replace(recipe, data=replace(recipe.data, val_split="test")), tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "optimizer_step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(ValueError, match=r"the loss became nan at step 0; lower train\.lr"):
        train(recipe_for(small_data), tmp_path / "run", console=QUIET)


def test_a_bad_mask_in_a_worker_names_the_file(small_data: Path, tmp_path: Path) -> None:
    path = small_data / "masks" / "train" / "003.png"
    os.truncate(path, 40)
    with pytest.raises(ValueError, match=r"003\.png"):
        train(recipe_for(small_data, workers=2), tmp_path / "run", console=QUIET)


def test_an_evaluation_that_a_signal_interrupts_is_made_up_for(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(small_data)
    whole = train(recipe, tmp_path / "whole", console=QUIET)
    evaluating = loop.Journal.evaluating

    def interrupted(journal: loop.Journal, done: int, total: int) -> None:
        evaluating(journal, done, total)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Journal, "evaluating", interrupted)
        result = train(recipe, tmp_path / "parts", console=QUIET)
    assert (result.step, result.interrupted) == (4, signal.SIGTERM)
    assert not (tmp_path / "parts" / "best").exists()
    resumed = train(recipe, tmp_path / "parts", resume=True, console=QUIET)
    assert (resumed.best_miou, resumed.best_step) == (whole.best_miou, whole.best_step)
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_failed_before_its_first_save_may_be_started_again(small_data: Path, tmp_path: Path) -> None:
    mask = small_data / "masks" / "train" / "003.png"
    good = mask.read_bytes()
    os.truncate(mask, 40)
    recipe = recipe_for(small_data)
    with pytest.raises(ValueError, match=r"003\.png"):
        train(recipe, tmp_path / "run", console=QUIET)
    mask.write_bytes(good)
    assert train(recipe, tmp_path / "run", console=QUIET).step == 8


def test_a_signal_to_the_whole_group_spares_the_workers(small_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "segformer", "train", "--data", str(small_data), "--data.resize", "64", "48"]
    command += ["--data.crop", "40", "48", "--train.steps", "5000", "--train.log-every", "1", "--train.workers", "2"]
    command += ["--model.decoder-channels", "32", "--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not any(m["step"] >= 3 for m in read_metrics(tmp_path / "run")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "go on with: segformer train --run-dir" in output


def test_the_model_that_goes_on_is_the_one_that_was_saved(small_data: Path, tmp_path: Path) -> None:
    start = build_model("mit_b0", num_classes=3, decoder_channels=32, norm_eps=1e-5)
    save(start, tmp_path / "start")
    recipe = recipe_for(small_data, init_from=str(tmp_path / "start"), steps=4, eval_every=2)
    folder = RunFolder(tmp_path / "run")
    folder.open(recipe, resume=False)
    save(start, folder.last)
    folder.last.rename(tmp_path / "run" / ".last.previous")
    shutil.rmtree(tmp_path / "start")  # only the run's own copy is left to be read
    again = RunFolder(tmp_path / "run")
    again.open(recipe, resume=True)
    assert loop.build_initialized(recipe, open_data(recipe.data), again, QUIET).card.model.norm_eps == 1e-5
