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

import segformer
from segformer.checkpoints.model_folder import load, save
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.evaluation.evaluate import score
from segformer.models.build import build_model
from segformer.recipes import read_recipe
from segformer.training import run as loop
from segformer.training.preparation import build_initialized
from segformer.training.run_folder import RunFolder, read_metrics
from segformer.training.segmentation import train
from small_runs import QUIET, assert_same_weights, recipe_for, stop_in_evaluation, stop_in_step


def test_a_run_leaves_what_it_should(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(recipe_for(small_data), run, reporter=QUIET)
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
    result = train(recipe, tmp_path / "run", reporter=QUIET)
    best = load(tmp_path / "run" / "best")
    assert best.card.provenance["step"] == result.best_step
    assert best.card.provenance["recipe"] == "small"
    assert best.card.classes == ("ground", "disc", "square")
    assert score(best, open_data(recipe.data), workers=0).miou == result.best_miou


def test_training_learns(small_data: Path, tmp_path: Path) -> None:
    result = train(recipe_for(small_data, steps=60, eval_every=60), tmp_path / "run", reporter=QUIET)
    assert result.best_miou > 0.6


def test_the_seed_decides_everything(small_data: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        torch.manual_seed(len(name))  # the caller's random state has no say, and is left alone
        state = torch.get_rng_state()
        train(recipe_for(small_data, seed=seed), tmp_path / name, reporter=QUIET)
        assert torch.equal(torch.get_rng_state(), state)
    assert_same_weights(tmp_path / "first", tmp_path / "again")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "first", tmp_path / "other")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_resuming_ends_the_same(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    recipe = recipe_for(small_data)
    train(recipe, tmp_path / "whole", reporter=QUIET)
    with monkeypatch.context() as patch:
        stop_in_step(3, number, patch)
        result = train(recipe, tmp_path / "parts", reporter=QUIET)
    assert (result.step, result.interrupted) == (3, number)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = train(recipe, tmp_path / "parts", resume=True, reporter=QUIET)
    assert resumed.step == 8
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
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
    assert_same_weights(whole, parts)


def test_resuming_a_finished_run_changes_nothing(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data)
    first = train(recipe, tmp_path / "run", reporter=QUIET)
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    again = train(recipe, tmp_path / "run", resume=True, reporter=QUIET)
    assert again.best_miou == first.best_miou
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_an_existing_run_is_never_overwritten(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--resume"):
        train(recipe_for(small_data), tmp_path / "run", reporter=QUIET)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_resume_refuses_a_changed_recipe(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data, steps=2)
    train(recipe, tmp_path / "run", reporter=QUIET)
    with pytest.raises(ValueError, match=r"train\.lr was 0\.001, is now 0\.1"):
        train(recipe_for(small_data, steps=2, lr=0.1), tmp_path / "run", resume=True, reporter=QUIET)
    with pytest.raises(UserError, match="leave out --resume"):
        train(recipe, tmp_path / "elsewhere", resume=True, reporter=QUIET)


def test_bf16_and_class_weights_train(small_data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(small_data, steps=2, precision="bf16", class_weights=(1.0, 2.0, 3.0), loss_average="all")
    assert math.isfinite(train(recipe, tmp_path / "run", reporter=QUIET).best_miou)


def test_what_does_not_fit_the_data_is_said_before_training(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.class_weights must have 3 values, got 2"):
        train(recipe_for(small_data, class_weights=(1.0, 2.0)), tmp_path / "run", reporter=QUIET)
    recipe = recipe_for(small_data)
    with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
        train(replace(recipe, data=replace(recipe.data, val_split="test")), tmp_path / "run", reporter=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "optimizer_step", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(ValueError, match=r"the loss became nan at step 0; lower train\.lr"):
        train(recipe_for(small_data), tmp_path / "run", reporter=QUIET)


def test_a_bad_mask_in_a_worker_names_the_file(small_data: Path, tmp_path: Path) -> None:
    path = small_data / "masks" / "train" / "003.png"
    os.truncate(path, 40)
    with pytest.raises(ValueError, match=r"003\.png"):
        train(recipe_for(small_data, workers=2), tmp_path / "run", reporter=QUIET)


def test_an_evaluation_that_a_signal_interrupts_is_made_up_for(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(small_data)
    whole = train(recipe, tmp_path / "whole", reporter=QUIET)
    with monkeypatch.context() as patch:
        stop_in_evaluation(signal.SIGTERM, patch)
        result = train(recipe, tmp_path / "parts", reporter=QUIET)
    assert (result.step, result.interrupted) == (4, signal.SIGTERM)
    assert not (tmp_path / "parts" / "best").exists()
    resumed = train(recipe, tmp_path / "parts", resume=True, reporter=QUIET)
    assert (resumed.best_miou, resumed.best_step) == (whole.best_miou, whole.best_step)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_failed_before_its_first_save_may_be_started_again(small_data: Path, tmp_path: Path) -> None:
    mask = small_data / "masks" / "train" / "003.png"
    good = mask.read_bytes()
    os.truncate(mask, 40)
    recipe = recipe_for(small_data)
    with pytest.raises(ValueError, match=r"003\.png"):
        train(recipe, tmp_path / "run", reporter=QUIET)
    mask.write_bytes(good)
    assert train(recipe, tmp_path / "run", reporter=QUIET).step == 8


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
    assert "resume with: segformer train --run-dir" in output


def test_the_model_that_goes_on_is_the_one_that_was_saved(small_data: Path, tmp_path: Path) -> None:
    start = build_model("mit_b0", num_classes=3, decoder_channels=32, norm_eps=1e-5)
    save(start, tmp_path / "start")
    recipe = recipe_for(small_data, init_from=str(tmp_path / "start"), steps=4, eval_every=2)
    folder = RunFolder(tmp_path / "run")
    folder.open(recipe, resume=False, read=read_recipe)
    save(start, folder.last)
    folder.last.rename(tmp_path / "run" / ".last.previous")
    shutil.rmtree(tmp_path / "start")  # only the run's own copy is left to be read
    again = RunFolder(tmp_path / "run")
    again.open(recipe, resume=True, read=read_recipe)
    model = build_initialized(recipe, open_data(recipe.data), again.last, print)
    assert model.card.model.norm_eps == 1e-5
