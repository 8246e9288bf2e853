from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segformer.checkpoints.model_folder import save
from segformer.cli.arguments import choose_device, choose_protocol, load_data, load_model, print_note, set_threads
from segformer.config import Preprocessing
from segformer.errors import UserError
from segformer.models.build import build_model


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    assert choose_device("cpu") == "cpu"
    with pytest.raises(UserError, match="--device cuda:2 does not exist; this machine has cuda:0 to 1"):
        choose_device("cuda:2")
    for name in ("tpu", "cuda:x", "cuda:", "cpu:0", "auto:1", ""):
        with pytest.raises(UserError, match="--device must be auto, cpu, cuda, cuda:N or mps, got"):
            choose_device(name)


def test_a_device_that_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(UserError, match="--device cuda is not available on this machine, which has cpu; leave"):
        choose_device("cuda")


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    set_threads(0)
    set_threads(3)
    assert asked == [3]
    with pytest.raises(UserError, match="--threads must be 0 or more, got -1"):
        set_threads(-1)


def test_data_and_its_notes(small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = load_data(str(small_data), relabel=[("disc", "thing"), ("square", "thing")])
    assert source.classes == ("ground", "thing")
    assert load_data("toytown").name == "toytown"
    capsys.readouterr()
    print_note("read this")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "note: read this\n")


def test_a_model_and_its_protocols(tmp_path: Path) -> None:
    save(build_model("mit_b0", num_classes=2, preprocessing=Preprocessing(short_side=96)), tmp_path / "model")
    model = load_model(str(tmp_path / "model"), "cpu", 0)
    own = model.card.eval
    assert choose_protocol(model, "own", None) == own
    assert choose_protocol(model, "own", "gaussian") == replace(own, blend="gaussian")
    assert choose_protocol(model, "slide", None).crop == (96, 96)
    assert len(choose_protocol(model, "multiscale", None).scales) > 1
