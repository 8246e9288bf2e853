from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.checkpoints.model_folder import save
from segformer.cli.main import main
from segformer.config import Preprocessing, default_palette
from segformer.data.sources import cityscapes
from segformer.models.build import build_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    small = Preprocessing(long_side=64, short_side=48)
    built = build_model("mit_b0", num_classes=19, decoder_channels=32, preprocessing=small)
    built.card = replace(built.card, classes=cityscapes.CLASSES, palette=default_palette(19))
    save(built, folder)
    return folder


def run(*arguments: object) -> int:
    """Exit status of the command line."""
    try:
        main(["submission", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_masks_for_the_server(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "leftImg8bit" / "test" / "bonn"
    images.mkdir(parents=True)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(images / "bonn_000000_000019_leftImg8bit.png")
    assert run(model, tmp_path / "leftImg8bit" / "test", "--to", "cityscapes", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out == f"1 masks in {tmp_path / 'out'}; zip the folder and upload it\n"
    written = np.asarray(Image.open(tmp_path / "out" / "bonn_000000_000019_leftImg8bit.png"))
    assert set(np.unique(written)) <= set(cityscapes.CLASS_IDS)


def test_a_model_of_other_classes_is_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, tmp_path, "--to", "ade20k", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a submission to ade20k needs a model of its 150 classes" in line
