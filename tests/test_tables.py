"""One new row in each table, from this file alone, and every door that the table has."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

import segformer
from conftest import CLASSES, PALETTE, draw_pair
from segformer.arrays import Array
from segformer.checkpoints.format import Format
from segformer.checkpoints.formats import FORMATS
from segformer.checkpoints.key_table import KeyTable, Row, State, write
from segformer.cli.main import main
from segformer.config import DataConfig, ModelCard, ModelConfig
from segformer.data.dataset import DataSource, Pair
from segformer.data.label_table import LabelTable
from segformer.data.sources import SOURCES, Source
from segformer.files import write_bytes
from segformer.models.build import build_model
from segformer.models.decoders import DECODERS, DecoderRow
from segformer.models.encoders import ENCODERS, EncoderRow
from segformer.models.interfaces import Decoder, Encoder
from segformer.ops.losses import LOSSES, LossRow
from segformer.paper.complexity import count_model
from segformer.robustness.corruptions import CORRUPTIONS, Corruption

SHORT = ["--train.steps", "2", "--train.eval-every", "2", "--train.batch-size", "2", "--train.workers", "0"]
SMALL = ["--data.crop", "32", "32", "--data.resize", "64", "48", "--preprocessing.short-side", "48", "--device", "cpu"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Output of a command that succeeds."""
    status: Any = 0
    try:
        main(arguments)
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    assert not status, printed.err
    return printed.out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that a user error ends."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def words(text: str) -> str:
    """Help without its line breaks."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks in the layout of PASCAL VOC, split by lists."""
    root = tmp_path_factory.mktemp("voc") / "streets"
    for name in ("Photos", "Labels", "Lists"):
        (root / name).mkdir(parents=True)
    for split, seeds in (("train", range(6)), ("val", range(6, 8))):
        names = [f"photo_{seed}" for seed in seeds]
        for name, seed in zip(names, seeds, strict=True):
            image, mask = draw_pair(seed)
            Image.fromarray(image).save(root / "Photos" / f"{name}.png")
            Image.fromarray(mask).save(root / "Labels" / f"{name}.png")
        (root / "Lists" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


# A data set


def open_listed(root: str) -> DataSource:
    """Open a tree whose splits are lists of names."""
    base = Path(root)
    splits = {
        path.stem: [
            Pair(name, base / "Photos" / f"{name}.png", base / "Labels" / f"{name}.png")
            for name in path.read_text().split()
        ]
        for path in sorted((base / "Lists").glob("*.txt"))
    }
    palette = tuple((r, g, b) for r, g, b in PALETTE)
    return DataSource(root, tuple(CLASSES), palette, LabelTable.identity(len(CLASSES)), splits)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Source(
        open=open_listed,
        description="splits as lists of names (Photos/ and Lists/)",
        recognizes=lambda root: (root / "Lists").is_dir(),
    )
    monkeypatch.setitem(SOURCES, "listed", row)


@pytest.mark.usefixtures("listed")
def test_a_data_set(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "evaluate", "inspect", "robustness"):
        assert "listed" in words(run(capsys, command, "--help"))
    assert "listed" in refusal(capsys, "inspect", f"lisetd={folder}")
    assert "--data listed=FOLDER" in refusal(capsys, "inspect", "listed")
    assert "splits as lists of names" in words(run(capsys, "train", "--list"))
    assert "8" in run(capsys, "inspect", str(folder), "--cheap")
    for number, data in enumerate((str(folder), f"listed={folder}")):
        run_dir = tmp_path / f"run_{number}"
        run(capsys, "train", "folder_b0", "--data", data, "--run-dir", str(run_dir), *SHORT, *SMALL)
        assert json.loads((run_dir / "recipe.json").read_text())["data"]["dataset"] == "listed"
    best = str(run_dir / "best")
    assert "mIoU 0." in run(capsys, "evaluate", best, "--data", str(folder), "--device", "cpu")
    assert segformer.load(best).card.classes == tuple(CLASSES)
    assert segformer.open_data(DataConfig(dataset="listed", root=str(folder))).samples("val")[0].name == "photo_6"


# An encoder of other strides, and a decoder with an auxiliary head


class TwoMaps(Encoder):
    """Two convolutions: maps at strides 8 and 16."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.channels = (6, 10)
        self.strides = (8, 16)
        self.fine = nn.Conv2d(in_channels, 6, 9, 8, 4)
        self.coarse = nn.Conv2d(6, 10, 3, 2, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = F.relu(self.fine(images))
        return [fine, F.relu(self.coarse(fine))]

    def named_stages(self) -> dict[str, nn.Module]:
        return {"fine": self.fine, "coarse": self.coarse}


class OneAuxiliary(Decoder):
    """A classifier on the first map, and an auxiliary one on the last."""

    auxiliary_weights = (0.4,)

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels[0], num_classes, 1)
        self.auxiliary = nn.Conv2d(channels[-1], num_classes, 1)

    def features(self, maps: Sequence[Tensor]) -> Tensor:
        return maps[0]

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self(maps), self.auxiliary(maps[-1])

    def reset_classes(self, num_classes: int) -> None:
        self.classifier = nn.Conv2d(self.classifier.in_channels, num_classes, 1)
        self.auxiliary = nn.Conv2d(self.auxiliary.in_channels, num_classes, 1)


def build_two_maps(config: ModelConfig) -> Encoder:
    return TwoMaps(config.in_channels)


def build_one_auxiliary(channels: Sequence[int], strides: Sequence[int], num_classes: int, _: ModelConfig) -> Decoder:
    assert len(channels) == len(strides)
    return OneAuxiliary(channels, num_classes)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        ENCODERS, "two_maps", EncoderRow(build=build_two_maps, description="two convolutions", decoder_channels=16)
    )
    row = DecoderRow(build=build_one_auxiliary, description="a classifier on the first map")
    monkeypatch.setitem(DECODERS, "one_auxiliary", row)


@pytest.mark.usefixtures("parts", "listed")
@pytest.mark.parametrize(
    "parts_of_model", [("two_maps", "all_mlp"), ("mit_b0", "one_auxiliary"), ("two_maps", "one_auxiliary")]
)
def test_an_encoder_and_a_decoder(
    parts_of_model: tuple[str, str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, decoder = parts_of_model
    page = words(run(capsys, "train", "--help"))
    assert encoder in page
    assert decoder in page
    run_dir, data = tmp_path / "run", str(folder)
    listed = run(capsys, "train", "--list")
    assert encoder in listed
    assert decoder in listed
    chosen = ["--model.encoder", encoder, "--model.decoder", decoder]
    if encoder == "mit_b0":
        chosen += ["--model.decoder-channels", "16"]  # else the row's own
    options = [*chosen, "--train.frozen-stages", "1", "--train.checkpointing"]
    run(capsys, "train", "folder_b0", "--data", data, "--run-dir", str(run_dir), *SHORT, *SMALL, *options)
    best = str(run_dir / "best")
    assert encoder in run(capsys, "info", best)
    assert "mIoU" in run(capsys, "evaluate", best, "--data", data, "--device", "cpu")
    model = segformer.load(best)
    assert model.card.model.decoder_channels == 16
    images = torch.randn(1, 3, 67, 45)
    logits = model(images)
    assert logits.shape[2:] == (-(-67 // model.encoder.strides[0]), -(-45 // model.encoder.strides[0]))
    torch.testing.assert_close(model.fuse()(images), logits, rtol=1e-4, atol=1e-5)
    run(capsys, "convert", best, str(tmp_path / "copy"), "--to", "segformer")
    assert torch.equal(segformer.load(tmp_path / "copy")(images), logits)
    assert "segformer" in refusal(capsys, "convert", best, str(tmp_path / "hf"), "--to", "hf")
    counted = count_model(model.card.model, len(CLASSES), (64, 64))
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    other = segformer.load(best, num_classes=5)  # fine-tuning on other classes
    assert other(images).shape[1] == 5
    run(capsys, "erf", best, "--data", data, "--limit", "1", "--out", str(tmp_path / "erf"), "--device", "cpu")


@pytest.mark.usefixtures("parts", "listed")
def test_an_unknown_part_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for field, wrong, right in (("encoder", "two_mpas", "two_maps"), ("decoder", "one_auxilary", "one_auxiliary")):
        run_dir = tmp_path / field
        arguments = ["--data", str(folder), "--run-dir", str(run_dir), f"--model.{field}", wrong]
        assert right in refusal(capsys, "train", "folder_b0", *arguments)
        assert not run_dir.exists()


# A checkpoint format

STAGE, THEIR_STAGE = "encoder.stages.{i}.", "net.{i}."
BLOCK, THEIR_BLOCK = STAGE + "blocks.{j}.", THEIR_STAGE + "{j}."
LAYERS = ("norm1", "norm2", "attention.query", "attention.key_value", "attention.output", "attention.reduce")
LAYERS += ("attention.norm", "ffn.expand", "ffn.depthwise", "ffn.contract")
ACME = KeyTable(
    name="Acme",
    rows=(
        *(Row(f"{STAGE}{name}", f"{THEIR_STAGE}{name}") for name in ("embed.project", "embed.norm", "norm")),
        *(Row(f"{BLOCK}{name}", f"{THEIR_BLOCK}{name}") for name in LAYERS),
        Row("decoder.projections.{i}", "head.{i}"),
        *(Row(f"decoder.{name}", f"head.{name}") for name in ("fuse", "norm", "classifier")),
    ),
    signature=("net.0.embed.project.weight", "head.classifier.weight"),
)


def write_acme(state: State, card: ModelCard, target: Path) -> None:
    write_bytes(target / "model.safetensors", save(write(ACME, state)))


def test_a_checkpoint_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    monkeypatch.setitem(FORMATS, "acme", Format(tables=(ACME,), write=write_acme))
    monkeypatch.setitem(SOURCES, "listed", Source(open=open_listed, description="splits as lists"))
    assert "acme" in words(run(capsys, "convert", "--help"))
    torch.manual_seed(0)
    model = build_model("mit_b0", num_classes=3).eval()
    segformer.save(model, tmp_path / "ours")
    run(capsys, "convert", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--to", "acme")
    assert "Acme" in run(capsys, "info", str(tmp_path / "theirs"))
    run(capsys, "convert", str(tmp_path / "theirs"), str(tmp_path / "back"))
    named = build_model("mit_b0", num_classes=3)
    named.card = replace(named.card, classes=tuple(CLASSES))
    segformer.save(named, tmp_path / "named")
    notes = segformer.convert(tmp_path / "named", tmp_path / "nameless", "acme")
    assert any("does not keep this model's class names" in note for note in notes)
    for converted in ("theirs", "back"):
        state = segformer.load(tmp_path / converted).state_dict()
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    start = ["--train.init-from", str(tmp_path / "theirs"), "--data", f"listed={folder}"]
    run(capsys, "train", "folder_b0", "--run-dir", str(tmp_path / "run"), *SHORT, *SMALL, *start)


def test_a_tensor_without_a_row_is_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = KeyTable(name="Acme", rows=ACME.rows[:-1], signature=ACME.signature)

    def write_most(state: State, card: ModelCard, target: Path) -> None:
        write_bytes(target / "model.safetensors", save(write(table, state)))

    monkeypatch.setitem(FORMATS, "acme", Format(tables=(table,), write=write_most))
    segformer.save(build_model("mit_b0", num_classes=3), tmp_path / "ours")
    said = refusal(capsys, "convert", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--to", "acme")
    assert "decoder.classifier" in said
    assert not (tmp_path / "theirs").exists()


# A corruption


def negative(image: Array, rng: np.random.Generator, share: float) -> Array:
    """Mix an image with its negative."""
    return np.asarray((1 - share) * image + share * (1 - image))


@pytest.mark.usefixtures("listed")
def test_a_corruption(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(
        CORRUPTIONS, "negative", Corruption("digital", negative, ((0.2,), (0.4,), (0.6,), (0.8,), (1.0,)), "Negat")
    )
    assert "negative" in words(run(capsys, "robustness", "--help"))
    assert "Negat" in run(capsys, "reproduce", "table5")
    untrained = build_model("mit_b0", num_classes=3)
    untrained.card = replace(untrained.card, classes=tuple(CLASSES))
    segformer.save(untrained, tmp_path / "model")
    out = tmp_path / "out"
    where = ["--data", str(folder), "--out", str(out), "--device", "cpu", "--workers", "0", "--limit", "1"]
    printed = run(
        capsys, "robustness", str(tmp_path / "model"), *where, "--corruptions", "negative", "--severities", "1", "5"
    )
    assert "negative" in words(printed).lower()
    figures = json.loads((out / "robustness.json").read_text())
    assert set(figures["corruptions"]) == {"negative"}
    assert "negative" in (out / "report.html").read_text().lower()


# A loss


def spherical(logits: Tensor, target: Tensor, *, ignore_index: int, scale: float, **_: Any) -> Tensor:
    """Mean of ``scale`` times 1 - p over the labeled pixels, at the size of the logits."""
    labels = F.interpolate(target[:, None].float(), size=logits.shape[2:], mode="nearest")[:, 0].long()
    valid = labels != ignore_index
    p = logits.softmax(dim=1).gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]
    return scale * (1 - p)[valid].mean()


@pytest.mark.usefixtures("listed")
def test_a_loss(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = LossRow(function=spherical, reduction="mean", description="one less the probability", options={"scale": 1.0})
    monkeypatch.setitem(LOSSES, "spherical", row)
    assert "spherical" in words(run(capsys, "train", "--help"))
    assert "one less the probability (options: scale 1)" in words(run(capsys, "train", "--list"))
    losses = []
    for number, scale in enumerate(("1.0", "3.0")):
        run_dir = tmp_path / f"run_{number}"
        chosen = ["--train.loss", "spherical", "--train.loss-options", "scale", scale, "--train.log-every", "1"]
        run(capsys, "train", "folder_b0", "--data", str(folder), "--run-dir", str(run_dir), *SHORT, *SMALL, *chosen)
        losses.append(json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)
    wrong = ["--train.loss", "spherical", "--train.loss-options", "scael", "1"]
    assert "scale" in refusal(capsys, "train", "folder_b0", "--data", str(folder), *wrong)
