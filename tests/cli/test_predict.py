from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segformer.checkpoints.model_folder import save
from segformer.cli.main import main
from segformer.cli.predict import row_bars
from segformer.config import Preprocessing
from segformer.inference.predictor import Predictor
from segformer.models.build import build_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    save(build_model("mit_b0", num_classes=3, preprocessing=Preprocessing(long_side=64, short_side=48)), folder)
    return folder


def run(*arguments: object) -> int:
    """Exit status of the command line."""
    try:
        main(["predict", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_masks_are_those_of_the_predictor(
    model: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = small_data / "images" / "val"
    assert run(images, "--model", model, "--out", tmp_path / "out", "--save", "mask") == 0
    assert capsys.readouterr().out == f"4 of 4 images segmented into {tmp_path / 'out'}\n"
    for path in images.iterdir():
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / path.name)), Predictor(model)(path).mask)


@pytest.mark.parametrize("options", [[], ["--window", "48"]])
def test_a_damaged_image_is_reported_and_the_others_are_segmented(
    model: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    images = small_data / "images" / "val"
    (images / "001.png").write_bytes(b"no image")
    assert run(images, "--model", model, "--out", tmp_path / "out", *options) == 2
    captured = capsys.readouterr()
    assert captured.out == f"3 of 4 images segmented into {tmp_path / 'out'}\n"
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {images / '001.png'}: expected an image")


def test_bad_arguments_are_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([tmp_path / "missing", "--model", model, "--out", tmp_path], "no such file or folder"),
        (
            [tmp_path, "--model", model, "--out", tmp_path, "--window", 31],
            "--window must be at least 32 pixels, got 31",
        ),
    ):
        assert run(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


class Bars:
    """A stand-in for a progress bar that keeps what it shows."""

    def __init__(self) -> None:
        self.shown: dict[int, Any] = {}
        self.added = 0

    def add_task(self, name: str, total: int) -> int:
        self.added += 1
        self.shown[self.added] = [name, 0, total]
        return self.added

    def update(self, task: int, completed: int) -> None:
        self.shown[task][1] = completed

    def remove_task(self, task: int) -> None:
        del self.shown[task]


def test_only_the_image_at_hand_has_a_bar_of_rows() -> None:
    bars = Bars()
    advanced = row_bars(bars)  # type: ignore[arg-type]
    advanced(Path("in/a.tif"), 10, 40)
    advanced(Path("in/a.tif"), 40, 40)
    assert list(bars.shown.values()) == [["a.tif", 40, 40]]
    advanced(Path("in/b.tif"), 5, 60)
    assert list(bars.shown.values()) == [["b.tif", 5, 60]]
