"""Every pair of the tables and of added rows is built, trained, fused, saved, loaded and fine-tuned."""

import json
from pathlib import Path

import pytest
import torch

import segformer
from models.small_parts import add_rows
from segformer.checkpoints.conversion import convert
from segformer.config import ModelCard, Preprocessing
from segformer.errors import UserError
from segformer.inference.predictor import Predictor
from segformer.models.build import build_from_card, build_model, check_card, model_config
from segformer.models.decoders import DECODERS
from segformer.models.encoders import ENCODERS
from transformers_parity import randomize, relative_difference

SMALLEST = ("mit_b0", "small")
PAIRS = [
    pytest.param(e, d, marks=() if e in SMALLEST else pytest.mark.slow)
    for e in (*ENCODERS, "small")
    for d in (*DECODERS, "small")
]


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows(monkeypatch)


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 95)])
def test_every_pair_builds_takes_odd_sizes_and_learns(encoder: str, decoder: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build_model(encoder, decoder, num_classes=4, decoder_channels=16)
    outputs = model.outputs(torch.randn(2, 3, *size))
    assert outputs[0].shape in [(2, 4, *(-(-side // stride) for side in size)) for stride in model.encoder.strides]
    assert len(outputs) == 1 + len(model.decoder.auxiliary_weights)
    sum(output.square().mean() for output in outputs).backward()  # type: ignore[union-attr]
    used = [p for name, p in model.named_parameters() if decoder != "small" or name.startswith("decoder.")]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in used)


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_every_pair_is_fused_predicts_and_resets_its_classes(encoder: str, decoder: str) -> None:
    torch.manual_seed(0)
    model = build_model(encoder, decoder, num_classes=4, decoder_channels=16)
    randomize(model)
    model.eval()
    images = torch.randn(1, 3, 65, 50)
    with torch.inference_mode():
        logits = model(images)
        assert relative_difference(model.fuse()(images), logits) < 1e-4
        maps = model.encoder(images)
        assert relative_difference(model.decoder.literal()(maps), logits) < 1e-4
        assert relative_difference(model.decoder.classifier(model.decoder.features(maps)), logits) < 1e-4
    pixels = torch.randint(0, 256, (65, 50, 3), dtype=torch.uint8).numpy()
    assert Predictor(model.fuse())(pixels).mask.shape == (65, 50)
    model.decoder.reset_classes(7)
    assert all(output.shape[1] == 7 for output in model.outputs(images))


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_the_contract_of_every_pair(encoder: str, decoder: str) -> None:
    model = build_model(encoder, decoder, num_classes=4, decoder_channels=16)
    maps = model.encoder(torch.randn(1, 3, 64, 96))
    assert [m.shape[1] for m in maps] == list(model.encoder.channels)
    assert [(m.shape[2], m.shape[3]) for m in maps] == [(64 // s, 96 // s) for s in model.encoder.strides]
    modules = dict(model.encoder.named_modules())
    stages = model.encoder.named_stages()
    assert all(modules[name] is stage for name, stage in stages.items())
    stem = modules[model.encoder.first_convolution()]
    assert isinstance(stem, torch.nn.Conv2d)
    assert stem.in_channels == 3
    assert all(modules[name] is layer for name, layer in model.encoder.named_attention().items())
    norms = set(map(id, model.encoder.norm_parameters()))
    assert norms <= set(map(id, model.encoder.parameters()))
    assert norms
    model.encoder.freeze(1)
    first, *others = stages.values()
    assert not any(p.requires_grad for p in first.parameters())
    assert all(p.requires_grad for stage in others for p in stage.parameters())
    with pytest.raises(UserError, match=rf"train\.frozen_stages must be at most {len(stages)} .*, got 9"):
        model.encoder.freeze(9)


def test_the_smallest_image_is_that_of_the_encoder() -> None:
    model = build_model("small", "small", num_classes=2)
    assert model(torch.zeros(1, 3, 16, 17)).shape == (1, 2, 8, 9)
    for network in (model, model.fuse()):
        with pytest.raises(UserError, match="images must be at least 16 pixels high and wide, got 15 x 40"):
            network(torch.zeros(1, 3, 15, 40))


@pytest.mark.parametrize(("encoder", "decoder"), [("small", "small"), ("small", "all_mlp"), ("mit_b0", "small")])
def test_an_added_pair_is_saved_and_loaded(encoder: str, decoder: str, tmp_path: Path) -> None:
    model = build_model(encoder, decoder, num_classes=3, binary=False)
    randomize(model)
    segformer.save(model.eval(), tmp_path / "model")
    loaded = segformer.load(tmp_path / "model")
    assert loaded.card == model.card
    images = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        assert relative_difference(loaded(images), model(images)) < 1e-5
    assert loaded.fingerprint() == model.fingerprint()
    with pytest.raises(UserError, match=r"cannot hold the (encoder|decoder) small, only .*; convert to segformer"):
        convert(tmp_path / "model", tmp_path / "there", "hf")
    assert not (tmp_path / "there").exists()
    assert convert(tmp_path / "model", tmp_path / "there", "segformer") == []


def test_an_added_pair_is_fine_tuned(tmp_path: Path) -> None:
    model = build_model("small", "small", num_classes=3)
    randomize(model)
    segformer.save(model.eval(), tmp_path / "model")
    other = segformer.load(tmp_path / "model", num_classes=5)
    assert [output.shape[1] for output in other.outputs(torch.zeros(1, 3, 32, 32))] == [5, 5]
    assert torch.equal(other.decoder.project.weight, model.decoder.project.weight)


def test_a_binary_head_with_an_auxiliary_output() -> None:
    model = build_model("small", "small", num_classes=2, binary=True)
    assert [output.shape for output in model.outputs(torch.zeros(2, 3, 32, 48))] == [(2, 2, 16, 24)] * 2


@pytest.mark.parametrize("unknown", [{"encoder": "smal"}, {"decoder": "smal"}])
def test_a_config_with_an_unknown_part_names_file_and_closest_row(unknown: dict[str, str], tmp_path: Path) -> None:
    segformer.save(build_model("small", "small", num_classes=3), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    values = json.loads(path.read_text())
    values["model"] |= unknown
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"model/config\.json: model\.\w+ must be one of .*; did you mean 'small'\?"):
        segformer.load(tmp_path / "model")


def test_bad_names_fields_and_numbers() -> None:
    with pytest.raises(UserError, match="did you mean 'mit_b3'"):
        build_model("mitb3", num_classes=4)
    with pytest.raises(UserError, match=r"model\.decoder must be one of all_mlp, .*; got 'all_mpl'; did you mean"):
        build_model("mit_b0", "all_mpl", num_classes=4)
    with pytest.raises(UserError, match=r"unknown field 'model\.in_chanels'; did you mean 'in_channels'"):
        build_model("mit_b0", num_classes=4, in_chanels=4)
    with pytest.raises(UserError, match="num_classes must be at least 1, got 0"):
        build_model("mit_b0", num_classes=0)


def test_a_card_whose_parts_do_not_fit_together() -> None:
    pixels = Preprocessing.for_channels(3)
    with pytest.raises(UserError, match=r"model\.binary needs two classes, got 3"):
        check_card(ModelCard.for_classes(model_config("mit_b0", binary=True), 3, pixels))
    with pytest.raises(UserError, match=r"must have model\.in_channels = 4 values, got 3 and 3"):
        build_from_card(ModelCard.for_classes(model_config("mit_b0", in_channels=4), 3, pixels))


def test_the_paper_pairs_each_encoder_with_a_width() -> None:
    assert [model_config(f"mit_b{n}").decoder_channels for n in range(6)] == [256, 256, 768, 768, 768, 768]
