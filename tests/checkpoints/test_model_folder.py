import errno
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file

from segformer.checkpoints import model_folder as checkpoint
from segformer.checkpoints.model_folder import load, save
from segformer.config import EvalConfig, ModelCard, Preprocessing
from segformer.errors import UserError
from segformer.models.build import build_from_card, model_config
from segformer.models.segmenter import Segmenter

FIXTURES = Path(__file__).parents[1] / "fixtures"
CARD = ModelCard(
    model=model_config("mit_b0", drop_path=0.2, align_corners=True),
    preprocessing=Preprocessing(resize="squash", long_side=96, short_side=64, multiple=1, std=(58.4, 57.1, 57.4)),
    eval=EvalConfig(crop=(64, 48), stride=(32, 24), scales=(0.5, 1.0), flip=True),
    classes=("road", "Straße", 'a "quoted" name'),
    palette=((128, 64, 128), (0, 0, 255), (1, 2, 3)),
    provenance={"recipe": "folder_b0", "step": 200, "scores": {"mIoU": 0.1234567890123, "classes": [None, 1]}},
    license="CC-BY-4.0",
)


def randomized(card: ModelCard) -> Segmenter:
    """Return a model whose biases, norms and statistics are random too."""
    torch.manual_seed(0)
    model = build_from_card(card)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.2 * torch.rand_like(tensor) - 0.1)
        else:
            tensor.add_(7)
    return model


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return randomized(CARD)


@pytest.fixture(scope="module")
def saved(model: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(model, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def assert_same_logits(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Weights that lie elsewhere in memory may round differently."""
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_what_is_loaded_computes_the_same(model: Segmenter, saved: Path) -> None:
    loaded = load(saved)
    images = torch.randn(1, 3, 64, 95)
    with torch.inference_mode():
        assert_same_logits(loaded(images), model.eval()(images))
    assert not any(module.training for module in loaded.modules())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    expected = model.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def test_the_card_survives_exactly(saved: Path) -> None:
    assert load(saved).card == CARD


def test_what_is_loaded_can_be_trained_and_saved_again(saved: Path, tmp_path: Path) -> None:
    loaded = load(saved).train()
    loaded(torch.randn(2, 3, 32, 64)).sum().backward()
    torch.optim.AdamW(loaded.parameters()).step()
    save(loaded, tmp_path / "again")
    assert torch.equal(load(tmp_path / "again").decoder.classifier.weight, loaded.decoder.classifier.weight)


def test_a_model_of_other_channels_and_one_class(tmp_path: Path) -> None:
    card = ModelCard.for_classes(model_config("mit_b0", in_channels=5), 1, Preprocessing.for_channels(5))
    model = randomized(card).eval()
    save(model, tmp_path / "model")
    images = torch.randn(1, 5, 32, 32)
    with torch.inference_mode():
        assert_same_logits(load(tmp_path / "model")(images), model(images))


def test_config_holds_the_whole_schema(saved: Path) -> None:
    values = json.loads((saved / "config.json").read_text())
    assert set(values) == {
        "format_version", "model", "preprocessing", "eval", "classes", "palette", "provenance", "license"
    }  # fmt: skip
    assert values["model"] == {
        "encoder": "mit_b0",
        "decoder": "all_mlp",
        "decoder_channels": 256,
        "in_channels": 3,
        "binary": False,
        "drop_path": 0.2,
        "dropout": 0.1,
        "norm_eps": 1e-6,
        "embed_norm_eps": 1e-5,
        "align_corners": True,
    }
    assert values["preprocessing"] == {
        "resize": "squash",
        "long_side": 96,
        "short_side": 64,
        "multiple": 1,
        "antialias": False,
        "pixels": "rgb",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.4, 57.1, 57.4],
    }
    assert values["eval"] == {
        "crop": [64, 48], "stride": [32, 24], "blend": "uniform", "windows": 1, "scales": [0.5, 1.0], "flip": True
    }  # fmt: skip
    assert values["classes"] == list(CARD.classes)
    assert values["palette"] == [list(color) for color in CARD.palette]
    assert values["provenance"] == CARD.provenance
    assert values["license"] == "CC-BY-4.0"
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_replaces_the_folder(model: Segmenter, folder: Path) -> None:
    model_of_two = randomized(replace(CARD, classes=("a", "b"), palette=CARD.palette[:2]))
    save(model_of_two, folder)
    assert load(folder).card.classes == ("a", "b")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert list(folder.parent.iterdir()) == [folder]


def full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = randomized(replace(CARD, license="other"))
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="MiB free"):
        save(other, folder)
    assert load(folder).card == CARD
    assert list(folder.parent.iterdir()) == [folder]


def test_a_model_is_found_after_a_kill_between_the_two_renames(
    folder: Path, model: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames: list[Path] = []
    original = Path.rename

    def first_only(self: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) == 2:
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "rename", first_only)
    with pytest.raises(KeyboardInterrupt):
        save(model, folder)
    assert load(folder).card == CARD


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model at '.*nowhere'.*give a model folder"):
        load(tmp_path / "nowhere")


def test_saving_never_removes_other_files(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(notes\.txt\)"):
        save(load(folder), folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert load(folder).card


def test_the_file_in_a_folder_means_the_folder(folder: Path) -> None:
    assert load(folder / "model.safetensors").card == load(folder).card


def test_another_projects_config_beside_our_weights(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(FOREIGN))
    with pytest.raises(ValueError, match="model: not a SegFormer checkpoint of a known format"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"model' is not a model folder: it has no {name}"):
        load(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:2000],
        lambda data: data[:-4],
        lambda data: data + b"more",
        lambda data: b"\x80\x02}q\x00." * 100,
        lambda data: b"\xff" * 8 + data[8:],
    ],
    ids=["0 bytes", "5 bytes", "cut in the header", "cut at the end", "longer", "a pickle", "header too large"],
)
def test_damaged_weights(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"model/model\.safetensors: damaged or not a safetensors file"):
        load(folder)


def edit(folder: Path, section: str | None, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (values if section is None else values[section]).update(changes)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_config_of_another_encoder(folder: Path) -> None:
    edit(folder, "model", encoder="mit_b1")
    expected = r"model\.safetensors: tensor 'encoder\..*' must be \(64, 3, 7, 7\) according to config.json, got \(32, 3"
    with pytest.raises(ValueError, match=expected):
        load(folder)


def test_a_config_of_a_deeper_encoder(folder: Path) -> None:
    edit(folder, "model", encoder="mit_b2", decoder_channels=256)
    with pytest.raises(ValueError, match=r"model\.safetensors: tensor 'encoder\."):
        load(folder)


def test_a_config_of_another_number_of_classes(folder: Path) -> None:
    edit(folder, None, classes=["a", "b"], palette=[[0, 0, 0], [1, 1, 1]])
    with pytest.raises(ValueError, match=r"tensor 'decoder.classifier.*' must be \(2,.*got \(3,"):
        load(folder)


def test_an_unknown_tensor_and_a_missing_one(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file(state | {"decoder.extra": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors: unknown tensor 'decoder\.extra'"):
        load(folder)
    del state["decoder.norm.running_var"]
    save_file(state, path)
    with pytest.raises(ValueError, match=r"model\.safetensors: tensor 'decoder\.norm\.running_var' is missing"):
        load(folder)


def test_weights_of_another_type_work_or_are_an_error(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = {name: t.half() if t.is_floating_point() else t for name, t in load_file(path).items()}
    save_file(state, path)
    try:
        loaded = load(folder)
    except ValueError as error:
        assert "model.safetensors" in str(error)  # noqa: PT017
    else:
        assert loaded.predict_mask(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("model", {"decoder_chanels": 256}, "unknown field 'model.decoder_chanels'; did you mean 'decoder_channels'"),
        ("preprocessing", {"shortside": 64}, "unknown field 'preprocessing.shortside'; did you mean 'short_side'"),
        (None, {"licenze": "MIT"}, "unknown field 'licenze'; did you mean 'license'"),
        ("model", {"encoder": "mitb0"}, "model.encoder must be one of .*; got 'mitb0'; did you mean 'mit_b0'"),
        ("eval", {"crop": [64]}, r"eval.crop must have 2 values, got 1"),
        ("preprocessing", {"resize": "fitt"}, "preprocessing.resize must be one of .*; did you mean 'fit'"),
        (None, {"palette": [[0, 0, 0]]}, r"palette must have one color per class \(3\), got 1"),
        ("preprocessing", {"mean": [0.5], "std": [0.5]}, r"must have model.in_channels = 3 values, got 1 and 1"),
    ],
)
def test_a_wrong_field_of_the_config(folder: Path, section: str | None, changes: dict[str, Any], message: str) -> None:
    edit(folder, section, **changes)
    with pytest.raises(ValueError, match=f"model/config.json: .*{message}"):
        load(folder)


def test_a_field_that_is_missing(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values["license"]
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"model/config\.json: missing field 'license'"):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "not JSON", "{'a': 1}"])
def test_a_config_that_is_no_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"model/config\.json: expected JSON"):
        load(folder)


FOREIGN = {"model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"], "depths": [2, 2, 2, 2]}


@pytest.mark.parametrize("values", [[], "text", None, {"format_version": 2, "model": {}}, {}])
def test_json_of_something_else(folder: Path, values: Any) -> None:
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"model/config\.json: expected a segformer model's config"):
        load(folder)


def test_a_saved_folder_needs_no_code_to_be_read(saved: Path) -> None:
    state = load_file(saved / checkpoint.WEIGHTS)
    assert state["encoder.stages.0.embed.project.weight"].shape == (32, 3, 7, 7)
    assert "mean" not in state  # it is in config.json, once


def test_a_folder_of_version_0_1_0_opens(tmp_path: Path) -> None:
    with tarfile.open(FIXTURES / "model_folder.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "model_folder"
    assert json.loads((folder / "config.json").read_text())["licence"] == "Apache-2.0"
    loaded = load(folder)
    assert loaded.card.license == "Apache-2.0"
    assert loaded.card.provenance["recipe"] == "toytown_b0"
    assert loaded.predict_mask(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape == (1, 64, 96)
    save(loaded, tmp_path / "again")
    values = json.loads((tmp_path / "again" / "config.json").read_text())
    assert values["license"] == "Apache-2.0"
    assert "licence" not in values


def test_a_number_of_classes_needs_its_option_spelled_right(saved: Path) -> None:
    with pytest.raises(TypeError, match="num_clases"):
        load(saved, num_clases=3)  # type: ignore[call-arg]
