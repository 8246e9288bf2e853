import time
from pathlib import Path

import numpy as np
import pytest

from segformer.config import DataConfig, Preprocessing, Recipe, TrainConfig
from segformer.models.build import model_config
from segformer.training.segmentation import train
from segformer.training.wandb_logger import WandbLogger
from small_runs import QUIET


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_home"))


def test_a_run_is_logged_below_its_folder(small_data: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        name="small",
        description="for tests",
        model=model_config("mit_b0", decoder_channels=32),
        data=DataConfig(root=str(small_data), resize=(64, 48), crop=(40, 48)),
        preprocessing=Preprocessing(long_side=64, short_side=48),
        train=TrainConfig(steps=2, batch_size=2, eval_every=2, log_every=1, workers=0, wandb="tests"),
    )
    train(recipe, tmp_path / "run", reporter=QUIET)
    (log,) = (tmp_path / "run").rglob("*.wandb")
    words = (b"loss", b"images_per_second", b"val/mIoU", b"decoder_channels")
    deadline = time.monotonic() + 30
    while not all(word in log.read_bytes() for word in words):  # the library writes in another process
        assert time.monotonic() < deadline, log.read_bytes()
        time.sleep(0.1)
    assert list((tmp_path / "run").rglob("media/images/val*.png"))


def test_a_folder_is_one_run(tmp_path: Path) -> None:
    versions = []
    for folder in ("a", "a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        logger = WandbLogger("tests", tmp_path / folder, {"x": 1})
        logger.log_hyperparams({"y": 2})
        logger.log_metrics({"loss": 0.5}, 1)
        logger.log_picture("val", np.zeros((4, 5, 3), dtype=np.uint8), 1)
        versions.append(logger.version)
        assert logger.name == "tests"
        logger.finalize("success")
    assert versions[0] == versions[1] != versions[2]
