import os
from pathlib import Path

import pytest
import torch

from checkpoints.formats.test_nvlabs import encoder_shapes, filled
from segformer.checkpoints.model_folder import save
from segformer.cli.info import in_words
from segformer.cli.main import main
from segformer.models.build import build_model


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "80")


@pytest.mark.usefixtures("narrow")
def test_a_model_on_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(build_model("mit_b0", num_classes=19, decoder_channels=32), tmp_path / "model")
    main(["info", str(tmp_path / "model")])
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == str(tmp_path / "model")
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "encoder 3,319,392" in text
    assert "model encoder mit_b0, decoder all_mlp, decoder_channels 32" in text
    assert "resize fit, long_side 2048, short_side 512" in text
    assert "mean 123.675 116.28 103.53" in text
    assert "classes 19: class_0, class_1" in text
    assert "provenance unknown license unknown" in text
    headings = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert headings[3:] == ["model", "preprocessing", "eval", "classes", "provenance", "license"]


@pytest.mark.usefixtures("narrow")
def test_an_encoder_alone_and_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(filled(encoder_shapes() | {"head.weight": (1000, 256), "head.bias": (1000,)}), tmp_path / "mit_b0.pth")
    main(["info", str(tmp_path / "mit_b0.pth")])
    text = " ".join(capsys.readouterr().out.split())
    assert "model an encoder without decoder: encoder mit_b0" in text
    assert "note left out head.weight, head.bias: the classifier that was used for pre-training" in text


def test_values_in_words() -> None:
    values = {"none": None, "no": False, "eps": 1e-6, "mean": [123.675, 58.0], "nested": {"mIoU": 0.123456}, "x": "y"}
    assert in_words(values) == "none none, no no, eps 1e-06, mean 123.675 58, nested (mIoU 0.1235), x y"
