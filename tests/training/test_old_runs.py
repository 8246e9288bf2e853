"""Run folders and recipes that version 0.1.0 wrote are read, reported and resumed.

The runs were interrupted by a signal; every learnt tensor in them was replaced by its mean, so that it packs small.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from pretraining_runs import write_pictures
from segformer.checkpoints.model_folder import load, read_weights
from segformer.data.sources.catalog import open_data
from segformer.pretraining.recipes import find_pretrain_recipe
from segformer.pretraining.task import pretrain
from segformer.recipes import find_recipe
from segformer.training.progress import Progress
from segformer.training.run_folder import RunFolder, read_metrics
from segformer.training.segmentation import train
from segformer.training.segmentation_page import write_segmentation_page
from small_runs import QUIET

FIXTURES = Path(__file__).parents[1] / "fixtures"


def unpack(name: str, folder: Path) -> Path:
    with tarfile.open(FIXTURES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def test_recipes() -> None:
    segmentation = find_recipe(str(FIXTURES / "recipe_segmentation.json"))
    assert (segmentation.train.loss, segmentation.train.loss_options) == ("focal", ())
    assert segmentation.data.relabel == (("sign", ""), ("tree", "plant"))
    pretraining = find_pretrain_recipe(str(FIXTURES / "recipe_pretraining.json"))
    assert (pretraining.randaug, pretraining.patience, pretraining.wandb) == ("rand-m9-mstd0.5-inc1", None, None)


def test_a_segmentation_run(tmp_path: Path) -> None:
    run = unpack("run_segmentation", tmp_path)
    state = RunFolder(run).load_trainer()
    assert state is not None
    before = Progress.from_state(state["progress"])
    assert (before.step, before.evaluated, before.best_step) == (4, 3, 3)
    old = read_metrics(run)
    recipe = find_recipe(str(run / "recipe.json"))

    best = load(run / "best")
    page = write_segmentation_page(run, best, open_data(recipe.data), "val").read_text()
    assert f"mIoU {old[3]['val/mIoU']:.3f}" in page

    result = train(str(run / "recipe.json"), run, resume=True, device="cpu", reporter=QUIET)
    assert (result.step, result.interrupted) == (6, None)
    assert read_metrics(run)[: len(old)] == old
    assert [line["step"] for line in read_metrics(run) if "loss" in line] == list(range(1, 7))
    assert json.loads((run / "manifest.json").read_text())["started_at_step"] == 4
    assert result.best_miou >= before.best


@pytest.fixture
def pretraining_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run and the images that it names by a relative path."""
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    return unpack("run_pretraining", tmp_path)


def test_a_pretraining_run(pretraining_run: Path) -> None:
    run = pretraining_run
    old = read_metrics(run)
    state = RunFolder(run).load_trainer()
    assert state is not None
    assert Progress.from_state(state["progress"]) == Progress(4, 3, 1.0, 0)
    assert read_weights(run / "best").config.encoder == "mit_b0"
    result = pretrain(str(run / "recipe.json"), run, resume=True, device="cpu", reporter=QUIET)
    assert (result.epoch, result.best_top1, result.interrupted) == (2, 1.0, None)
    assert read_metrics(run)[: len(old)] == old
    assert [line["step"] for line in read_metrics(run) if "loss" in line] == list(range(1, 7))
    assert "best top-1" in (run / "report.html").read_text()


def test_a_pretraining_run_still_refuses_other_images(pretraining_run: Path) -> None:
    shutil.rmtree("pictures/train/red")
    shutil.rmtree("pictures/val/red")
    with pytest.raises(ValueError, match=r"the run began with .*, now there is"):
        pretrain(str(pretraining_run / "recipe.json"), pretraining_run, resume=True, device="cpu", reporter=QUIET)
