"""Fine-tuning: what a model takes over from another, and what it says about the rest."""

import json
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import segformer
from checkpoints.formats.test_nvlabs import encoder_shapes, filled, segmentation_shapes, with_bias
from segformer.checkpoints.fine_tuning import initialize
from segformer.checkpoints.model_folder import read_weights, save
from segformer.cli.main import main
from segformer.config import Preprocessing
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from segformer.training import run as loop
from transformers_parity import randomize, relative_difference, transformers_model

HEAD = ("decoder.classifier.weight", "decoder.classifier.bias")
SMALL = ["--data.resize", "64", "48", "--data.crop", "40", "48", "--train.batch-size", "2", "--train.workers", "0"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of three classes whose every tensor is told from a fresh one."""
    torch.manual_seed(0)
    pixels = Preprocessing(short_side=320, mean=(1.0, 2.0, 3.0))
    model = build_model("mit_b0", num_classes=3, norm_eps=1e-5, align_corners=True, preprocessing=pixels)
    randomize(model)
    folder = tmp_path_factory.mktemp("source") / "model"
    save(model, folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "mit_b0.pth"
    torch.save(filled(encoder_shapes() | with_bias("head", 1000, 256)), path)
    return path


def differing(first: Segmenter, second: Segmenter) -> set[str]:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    return {
        name for name in ours if ours[name].shape != theirs[name].shape or not torch.equal(ours[name], theirs[name])
    }


def target(**options: Any) -> Segmenter:
    torch.manual_seed(1)
    return build_model("mit_b0", **({"num_classes": 3} | options))


def test_a_head_of_another_number_of_classes_is_replaced(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="segformer"):
        model = segformer.load(source, num_classes=5)
    (record,) = caplog.records
    assert record.getMessage() == f"{source}: initialized at random: decoder.classifier"
    assert differing(model, segformer.load(source)) == set(HEAD)
    card, original = model.card, segformer.load(source).card
    assert card.classes == tuple(f"class_{k}" for k in range(5))
    assert len(card.palette) == 5
    assert (card.model, card.preprocessing) == (original.model, original.preprocessing)
    assert not model.training
    assert model(torch.randn(1, 3, 32, 64)).shape == (1, 5, 8, 16)


def test_a_head_of_the_same_number_is_kept(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="segformer"):
        model = segformer.load(source, num_classes=3)
    assert not caplog.records
    assert not differing(model, segformer.load(source))
    assert model.card == segformer.load(source).card


@pytest.mark.parametrize("number", [0, -1])
def test_no_classes(source: Path, number: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes must be at least 1, got {number}"):
        segformer.load(source, num_classes=number)


def test_an_encoder_alone(encoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = target()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    notes = initialize(model, read_weights(encoder))
    assert "head.weight" in notes[0]
    assert notes[1].startswith("initialized at random: decoder.classifier, decoder.fuse, decoder.norm")
    state = torch.load(encoder, weights_only=True)
    assert torch.equal(model.state_dict()["encoder.stages.3.norm.weight"], state["norm4.weight"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name.startswith("decoder.")), name


@torch.inference_mode()
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_input_channels_keep_the_scale(source: Path, channels: int) -> None:
    """An image whose channels are equal gives the same logits, however many channels it has."""
    model = target(in_channels=channels, norm_eps=1e-5).eval()
    notes = initialize(model, read_weights(source))
    assert notes == [f"adapted the first convolution from 3 to {channels} channels"]
    gray = torch.randn(1, 1, 64, 96)
    expected = segformer.load(source)(gray.expand(1, 3, 64, 96))
    assert relative_difference(model(gray.expand(1, channels, 64, 96)), expected) < 1e-4


@torch.inference_mode()
def test_channels_and_back(tmp_path: Path) -> None:
    many = target(in_channels=5)
    randomize(many)
    save(many.eval(), tmp_path / "many")
    model = target().eval()
    assert initialize(model, read_weights(tmp_path / "many")) == ["adapted the first convolution from 5 to 3 channels"]
    gray = torch.randn(1, 1, 64, 96)
    assert relative_difference(model(gray.expand(1, 3, 64, 96)), many(gray.expand(1, 5, 64, 96))) < 1e-4


def test_another_width_of_the_decoder_is_said(source: Path) -> None:
    model = target(decoder_channels=64)
    (note,) = initialize(model, read_weights(source))
    parts = "decoder.classifier, decoder.fuse, decoder.norm, decoder.projections.0"
    assert note.startswith(f"initialized at random: {parts}")
    encoder = {name for name in differing(model, segformer.load(source)) if name.startswith("encoder.")}
    assert not encoder


def test_another_encoder_is_refused(source: Path) -> None:
    model = build_model("mit_b1", num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"model has the encoder mit_b0, but the model has mit_b1"):
        initialize(model, read_weights(source))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def card_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return values


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A model of transformers, whose eps is another one than ours."""
    torch.manual_seed(0)
    transformers_model("mit_b0", 19).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_training_from_it_and_going_on_keeps_the_eps(
    small_data: Path,
    theirs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step, calls = loop.optimizer_step, []

    def interrupted(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    runs = tmp_path / "run"
    arguments = ["train", "--data", small_data, "--run-dir", runs, "--train.init-from", theirs, *SMALL]
    arguments += ["--train.steps", "2", "--train.eval-every", "2", "--train.lr", "1e-6", "--train.warmup-steps", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimizer_step", interrupted)
        assert run(*arguments) == 128 + signal.SIGINT
    said = " ".join(capsys.readouterr().out.split())
    assert f"note: {theirs}: initialized at random: decoder.classifier" in said
    last = card_of(runs / "last")
    assert (last["model"]["norm_eps"], last["model"]["embed_norm_eps"]) == (1e-5, 1e-5)
    assert last["provenance"]["init_from"] == str(theirs)
    (theirs / "model.safetensors").unlink()  # it is not needed any more
    assert run("train", "--run-dir", runs, "--resume") == 0
    for name in ("best", "last"):
        model = segformer.load(runs / name)
        config = model.card.model
        assert (config.norm_eps, config.embed_norm_eps) == (1e-5, 1e-5)
        assert model.encoder.stages[0].blocks[0].norm1.eps == 1e-5  # type: ignore[union-attr,index]
        assert model.card.classes == ("ground", "disc", "square")
        assert model.card.provenance["step"] == 2


def test_a_trained_model_starts_from_the_weights(small_data: Path, encoder: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", small_data, "--run-dir", tmp_path / "run", "--train.init-from", encoder, *SMALL]
    arguments += ["--train.steps", "1", "--train.eval-every", "1", "--train.lr", "1e-9", "--train.warmup-steps", "0"]
    assert run(*arguments) == 0
    trained, state = segformer.load(tmp_path / "run" / "best").state_dict(), torch.load(encoder, weights_only=True)
    for ours, theirs in (("stages.0.embed.project", "patch_embed1.proj"), ("stages.3.norm", "norm4")):
        torch.testing.assert_close(trained[f"encoder.{ours}.weight"], state[f"{theirs}.weight"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train.init-from", "no/such/model"], "no model at 'no/such/model'"),
        (["--model.encoder", "mit_b1"], "has the encoder mit_b0, but the model has mit_b1"),
    ],
)
def test_what_can_not_be_started_from_is_one_clear_line(
    small_data: Path,
    encoder: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["train", "--data", small_data, "--run-dir", tmp_path / "run", "--train.init-from", encoder, *SMALL]
    assert run(*arguments, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_head_is_kept_where_the_classes_are_as_many(source: Path) -> None:
    model = target()
    assert initialize(model, read_weights(source)) == []
    assert not differing(model, segformer.load(source))


def test_weights_of_the_authors_are_a_start_with_notes(tmp_path: Path) -> None:
    torch.save({"state_dict": filled(segmentation_shapes(19))}, tmp_path / "nv.pth")
    notes = initialize(target(), read_weights(tmp_path / "nv.pth"))
    assert ["left out" in notes[0], notes[1]] == [True, "initialized at random: decoder.classifier"]
