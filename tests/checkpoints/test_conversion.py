"""Conversion to every format of the table: the same logits, and a note for everything that is lost."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import segformer
from checkpoints.added_format import ADDED, writer
from segformer.checkpoints.conversion import convert, targets, two_logits
from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.model_folder import save
from segformer.config import Preprocessing
from segformer.errors import UserError
from segformer.models.build import build_model, model_config
from transformers_parity import randomize, relative_difference

EPS = {"hf": (1e-5, 1e-5), "smp": (1e-6, 1e-5), "nvlabs": (1e-6, 1e-5)}


@pytest.mark.parametrize("to", ["segformer", *EPS])
@pytest.mark.parametrize("in_channels", [3, 4])
@torch.inference_mode()
def test_every_writer_keeps_the_logits(to: str, in_channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    norm_eps, embed_norm_eps = EPS.get(to, (1e-3, 1e-4))
    model = build_model(
        "mit_b0",
        num_classes=7,
        in_channels=in_channels,
        decoder_channels=64,
        norm_eps=norm_eps,
        embed_norm_eps=embed_norm_eps,
        align_corners=to == "smp",
        preprocessing=Preprocessing.for_channels(in_channels, resize="squash", short_side=64, long_side=96, multiple=1),
    )
    randomize(model)
    save(model.eval(), tmp_path / "model")
    assert differences(convert(tmp_path / "model", tmp_path / "there", to)) == []
    again = segformer.load(tmp_path / "there")
    assert again.card.model == model.card.model
    images = torch.randn(2, in_channels, 64, 95)
    assert relative_difference(again(images), model(images)) < 1e-5
    with pytest.raises(UserError, match="there"):
        convert(tmp_path / "model", tmp_path / "there", to)


EPS_NOTE, CORNERS_NOTE, SQUASH_NOTE = "norm_eps", "align_corners", "squashes"


@pytest.mark.parametrize(
    ("options", "resize", "to", "expected"),
    [
        ({}, "fit", "nvlabs", []),
        ({}, "squash", "hf", [EPS_NOTE]),
        ({}, "fit", "hf", [EPS_NOTE, SQUASH_NOTE]),
        ({}, "none", "hf", [EPS_NOTE, SQUASH_NOTE]),
        ({}, "fit", "smp", [CORNERS_NOTE]),
        ({"embed_norm_eps": 1e-6}, "fit", "nvlabs", [EPS_NOTE]),
        ({"embed_norm_eps": 1e-6}, "squash", "hf", [EPS_NOTE, EPS_NOTE]),
        ({"norm_eps": 1e-5}, "squash", "hf", []),
        ({"norm_eps": 1e-5}, "fit", "nvlabs", [EPS_NOTE]),
        ({"norm_eps": 1e-5, "align_corners": True}, "squash", "hf", [CORNERS_NOTE]),
        ({"align_corners": True}, "fit", "nvlabs", [CORNERS_NOTE]),
        ({"align_corners": True}, "fit", "smp", []),
        ({"norm_eps": 1e-5, "align_corners": True}, "fit", "smp", [EPS_NOTE]),
        ({"norm_eps": 1e-4, "align_corners": True}, "fit", "segformer", []),
    ],
)
def test_what_a_target_cannot_hold_is_reported(
    options: dict[str, Any], resize: Any, to: str, expected: list[str], tmp_path: Path
) -> None:
    config = model_config("mit_b0", decoder_channels=32, **options)
    save(build_model(config, num_classes=2, preprocessing=Preprocessing(resize=resize)), tmp_path / "model")
    notes = differences(convert(tmp_path / "model", tmp_path / "there", to))
    assert len(notes) == len(expected)
    for note, part in zip(notes, expected, strict=True):
        assert part in note
        assert "differ" in note or "squashes" in note


def differences(notes: list[str]) -> list[str]:
    """Notes of a conversion but for what a target has no place for, which is the same for every model."""
    return [note for note in notes if "holds no" not in note]


@pytest.mark.parametrize(
    ("to", "missing"),
    [("hf", []), ("nvlabs", ["preprocessing"]), ("smp", ["class names and no palette", "preprocessing"])],
)
def test_what_a_target_has_no_place_for_is_reported(to: str, missing: list[str], tmp_path: Path) -> None:
    segformer.save(segformer.build_model("mit_b0", num_classes=3), tmp_path / "model")
    notes = [note for note in convert(tmp_path / "model", tmp_path / "there", to) if "holds no" in note]
    assert len(notes) == len(missing)
    assert all(f"holds no {what}" in note for what, note in zip(missing, notes, strict=True))
    assert not missing or "resize fit into 2048 x 512" in notes[-1]


def test_a_binary_model_is_written_as_two_classes(tmp_path: Path) -> None:
    model = build_model("mit_b0", num_classes=2, binary=True, decoder_channels=32, align_corners=True)
    randomize(model.decoder)
    save(model.eval(), tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "there", "smp")
    again = segformer.load(tmp_path / "there")
    assert not again.card.model.binary
    images = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        assert relative_difference(again(images), model(images)) < 1e-5


def test_two_logits_put_a_zero_before_the_one() -> None:
    state = {"decoder.classifier.weight": torch.ones(1, 4, 1, 1), "decoder.classifier.bias": torch.ones(1)}
    doubled = two_logits(state | {"other": torch.ones(3)})
    assert doubled["decoder.classifier.bias"].tolist() == [0, 1]
    assert doubled["decoder.classifier.weight"].flatten().tolist() == [0] * 4 + [1] * 4
    assert doubled["other"].tolist() == [1] * 3


def test_a_format_added_to_the_table_is_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "added", ADDED)
    assert targets() == ["segformer", *(name for name, row in FORMATS.items() if row.write)]
    assert "added" in targets()
    model = build_model("mit_b0", num_classes=3, decoder_channels=32)
    randomize(model.encoder)
    randomize(model.decoder)
    model.card = replace(model.card, classes=("a", "b", "c"))
    save(model.eval(), tmp_path / "model")
    (note,) = convert(tmp_path / "model", tmp_path / "there", "added")
    assert note.startswith("the added format holds no preprocessing")
    again = segformer.load(tmp_path / "there")
    assert again.card.classes == ("a", "b", "c")
    assert again.card.provenance["layout"] == "the added format"
    assert again.fingerprint() == model.fingerprint()


def test_a_tensor_without_a_row_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ADDED.tables[0]
    rows = tuple(row for row in table.rows if row.ours != "decoder.norm")
    short = replace(table, rows=rows)
    monkeypatch.setitem(FORMATS, "added", replace(ADDED, tables=(short,), write=writer(short)))
    save(build_model("mit_b0", num_classes=3, decoder_channels=32), tmp_path / "model")
    with pytest.raises(UserError, match=r"the added format has no place for the tensor 'decoder\.norm\.weight'"):
        convert(tmp_path / "model", tmp_path / "there", "added")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("to", ["tao", "mmseg", "keras"])
def test_what_is_no_target(to: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--to must be one of {', '.join(targets())}; got '{to}'"):
        convert(tmp_path / "model", tmp_path / "there", to)
