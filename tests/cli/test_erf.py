import json
from pathlib import Path

import pytest
import torch

from conftest import write_folder
from segformer.checkpoints.model_folder import save
from segformer.cli.main import main
from segformer.config import Preprocessing
from segformer.models.build import build_model
from segformer.receptive_field import measure as erf_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "model"
    save(build_model("mit_b0", num_classes=7, preprocessing=Preprocessing(long_side=80, short_side=64)), folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "data", {"train": 1, "val": 4})


def run(*arguments: object) -> int:
    try:
        main(["erf", *(str(a) for a in arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_the_command_ends_with_a_plain_line(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data's classes are not the model's: a receptive field does not ask for them."""
    assert run(model, "--data", data, "--limit", "2", "--compare", "resnet18", "--out", tmp_path / "erf") == 0
    lines = capsys.readouterr().out.splitlines()
    written = json.loads((tmp_path / "erf" / "erf.json").read_text())
    ours = written["models"][str(model)]
    shares = [100 * ours[name]["share_of_image_95"] for name in ("stage 4", "decoder")]
    assert (
        lines[-1]
        == f"smallest area with 95 % of the mass: stage 4 {shares[0]:.1f} % of the image, decoder {shares[1]:.1f} %"
    )
    assert lines[-2].startswith("resnet18 (random weights): smallest area with 95 % of the mass: stage 4 ")
    assert written["size"] == "64 x 64"
    assert ours["images"] == 2
    assert {path.name for path in (tmp_path / "erf").iterdir()} == {"erf.html", "erf.png", "erf.json", "state"}


def test_ctrl_c_keeps_what_there_is(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, calls = erf_run.image_fields, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(erf_run, "image_fields", interrupted)
    command = (model, "--data", data, "--limit", "3", "--out", tmp_path)
    assert run(*command) == 130
    assert "run the same command to resume" in capsys.readouterr().err
    assert run(*command) == 0
    assert len(calls) == 4
    assert json.loads((tmp_path / "erf.json").read_text())["models"][str(model)]["images"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "0"], "--limit must be at least 1, got 0"),
        (["--size", "100", "128"], "--size must be two multiples of 64"),
        (["--compare", "resnet1O1"], "timm has no encoder 'resnet1O1'; did you mean 'resnet101'?"),
        (["--compare", "resnet18=none.pth"], "none.pth: no such file"),
        (["--split", "night"], "has no split 'night'; it has train, val"),
    ],
)
def test_bad_input_is_one_line(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(model, "--data", data, "--out", tmp_path / "erf", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "erf").exists()
