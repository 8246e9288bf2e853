"""Files that nobody vouches for: one clear line that names the file, and nothing in them is run."""

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor
from torchvision.models import resnet18

import segformer
from checkpoints.formats.test_nvlabs import encoder_shapes, filled, segmentation_shapes, with_bias
from segformer.checkpoints.weight_files import read_checkpoint
from segformer.cli.main import main
from segformer.errors import UserError
from transformers_parity import transformers_model

STATE = filled(segmentation_shapes())
QUERY = "backbone.block2.1.attn.q.weight"


class Intruder:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.marker, "was here")


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which the command line refuses a file; ``load`` must say the same."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(path)])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    (line,) = said.strip().splitlines()
    assert line.startswith("error: ")
    assert path.name in line
    assert len(line) < 500
    with pytest.raises(UserError) as raised:
        segformer.load(path)
    assert line == f"error: {' '.join(str(raised.value).split())}"
    return line


def pvt_state() -> dict[str, Tensor]:
    """A PVT-Small: the sizes of MiT-B2, but patches that do not overlap, position embeddings, and plain MLPs."""
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, 512)}
    before = 3
    stages = zip((64, 128, 320, 512), (3, 4, 6, 3), (4, 2, 2, 2), (8, 4, 2, 1), (8, 8, 4, 4), strict=True)
    for i, (c, depth, kernel, reduction, ratio) in enumerate(stages, start=1):
        shapes |= {f"pos_embed{i}": (1, 49, c)} | with_bias(f"patch_embed{i}.norm", c)
        shapes |= with_bias(f"patch_embed{i}.proj", c, before, kernel, kernel)
        for block in (f"block{i}.{j}" for j in range(depth)):
            shapes |= with_bias(f"{block}.norm1", c) | with_bias(f"{block}.norm2", c)
            shapes |= with_bias(f"{block}.attn.q", c, c) | with_bias(f"{block}.attn.kv", 2 * c, c)
            shapes |= with_bias(f"{block}.attn.proj", c, c)
            if reduction > 1:
                shapes |= with_bias(f"{block}.attn.sr", c, c, reduction, reduction)
                shapes |= with_bias(f"{block}.attn.norm", c)
            shapes |= with_bias(f"{block}.mlp.fc1", ratio * c, c) | with_bias(f"{block}.mlp.fc2", c, ratio * c)
        before = c
    shapes |= with_bias("norm", 512) | with_bias("head", 1000, 512)
    return {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}  # one number each in the file


def pvt_v2_state() -> dict[str, Tensor]:
    """MiT's names, overlapping patches too, but MLPs eight times as wide in the first two stages."""
    shapes = encoder_shapes()
    for i, c in ((1, 32), (2, 64)):
        for j in range(2):
            mlp = f"block{i}.{j}.mlp"
            shapes |= with_bias(f"{mlp}.fc1", 8 * c, c) | with_bias(f"{mlp}.fc2", c, 8 * c)
            shapes |= with_bias(f"{mlp}.dwconv.dwconv", 8 * c, 1, 3, 3)
    return filled(shapes)


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in STATE.items() if key != name}


CONTENTS: dict[str, tuple[Any, str]] = {
    "wrong shape": (STATE | {QUERY: torch.zeros(64, 32)}, rf"'{QUERY}' must be \(64, 64\), got \(64, 32\)"),
    "a scalar": (STATE | {QUERY: torch.zeros(())}, rf"'{QUERY}' must be \(64, 64\), got \(\)"),
    "a scalar for a stem": (
        STATE | {"backbone.patch_embed1.proj.weight": torch.zeros(())},
        "patch_embed1|channels|kernel",
    ),
    "no classifier": (without("decode_head.linear_pred.weight"), "'decode_head.linear_pred.weight' is missing"),
    "missing": (without(QUERY), f"'{QUERY}' is missing"),
    "one stage missing": (without("backbone.patch_embed3.proj.weight"), "'backbone.patch_embed3.proj.weight' is miss"),
    "unknown": (STATE | {"backbone.extra": torch.zeros(1)}, "unknown tensor 'backbone.extra'"),
    "a ResNet": (resnet18(weights=None).state_dict(), "not a SegFormer checkpoint: it looks like a ResNet"),
    "a PVT": (pvt_state(), "PVT|position embedding|kernel"),
    "a PVTv2": (pvt_v2_state(), r"block1\.0\.mlp\.fc1.*\(128, 32\), got \(256, 32\)|PVT"),
    "an empty dict": ({}, "holds no tensors"),
    "no tensors": ({"epoch": 3, "lr": 0.1, "name": "segformer"}, "holds no tensors"),
    "nested, no tensors": ({"state_dict": {}, "meta": {}}, "holds no tensors"),
    "a list": ([1, 2, 3], "expected named tensors, got list"),
    "a tensor": (torch.zeros(3), "expected named tensors, got Tensor"),
    "somebody's model": ({"fc.weight": torch.zeros(2, 2)}, r"not a SegFormer checkpoint.*fc\.weight"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_contents_that_do_not_fit(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents, message = CONTENTS[case]
    torch.save(contents, tmp_path / "contents.pth")
    line = refused(tmp_path / "contents.pth", capsys)
    assert re.search(message, line), line


def zeros_of_gigabytes() -> bytes:
    header = {"a": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


DAMAGED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "0 bytes": ("model.safetensors", bytes),
    "0 bytes of a pickle": ("model.pth", bytes),
    "text": ("model.safetensors", lambda: b"this is no checkpoint\n" * 9),
    "text in place of a pickle": ("model.pth", lambda: b"this is no checkpoint\n" * 9),
    "a web page": ("pytorch_model.bin", lambda: b"<!DOCTYPE html><html>not found</html>"),
    "a pointer of git lfs": ("model.pt", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"),
    "a header of gigabytes": ("model.safetensors", lambda: struct.pack("<Q", 2**40) + b"{}"),
    "a header of more than there is": ("model.safetensors", lambda: struct.pack("<Q", 2**63 + 1) + b"{}"),
    "tensors of gigabytes": ("model.safetensors", zeros_of_gigabytes),
    "a truncated header": ("model.safetensors", lambda: save(STATE)[:500]),
    "truncated tensors": ("model.safetensors", lambda: save(STATE)[:-1000]),
    "zip alone": ("model.pth", lambda: b"PK\x03\x04" + bytes(100)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, contents = DAMAGED[case]
    (tmp_path / name).write_bytes(contents())
    line = refused(tmp_path / name, capsys)
    assert "damaged" in line or "refused to load" in line


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_pickle(share: float, zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    line = refused(path, capsys)
    assert "damaged" in line or "refused to load" in line


@pytest.mark.parametrize("suffix", ["zip.pth", "legacy.pth", "safetensors"])
def test_damage_anywhere_is_one_clear_error(suffix: str, tmp_path: Path) -> None:
    path, random = tmp_path / f"model.{suffix}", Random(0)
    state = {name: tensor for name, tensor in STATE.items() if tensor.numel() < 200}
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=suffix == "zip.pth")
    whole, refusals = path.read_bytes(), 0
    for number in range(300):
        data = bytearray(whole[: random.randrange(len(whole))] if number % 2 else whole)
        for _ in range(1 + number % 7):
            data[random.randrange(len(data))] = random.randrange(256)
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except ValueError as error:
            assert path.name in str(error)  # noqa: PT017  # it may also be no damage that shows
            refusals += 1
    assert refusals >= 150  # all that were cut


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin", "model.ckpt", "model.pt", "no_suffix"])
def test_code_in_a_pickle_is_not_run(
    name: str, zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "marker"
    contents = {"state_dict": STATE, "meta": Intruder(marker)}
    torch.save(contents, tmp_path / name, _use_new_zipfile_serialization=zipped)
    line = refused(tmp_path / name, capsys)
    assert "refused to load" in line
    assert "code" in line
    assert not marker.exists()
    torch.load(tmp_path / name, weights_only=False)
    assert marker.exists()  # it would have been


def test_code_in_a_folder_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(STATE | {"x": Intruder(tmp_path / "marker")}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"folder/pytorch_model\.bin: refused to load"):
        segformer.load(folder)
    assert not (tmp_path / "marker").exists()


def test_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(folder, capsys)
    (folder / "notes.txt").write_text("nothing here")
    refused(folder, capsys)
    for name in ("a.pth", "b.pth"):
        torch.save(STATE, folder / name)
    assert "2" in refused(folder, capsys)


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../../x.bin"}}', "{"]
)
def test_an_index_of_shards_that_does_not_fit(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    (folder / "pytorch_model.bin.index.json").write_text(index)
    refused(folder, capsys)


def test_a_shard_stays_within_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(STATE, tmp_path / "outside.bin")
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.bin"}}))
    capsys.readouterr()
    with pytest.raises(UserError, match=r"shards/outside\.bin: no such file"):
        segformer.load(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        "{",
        '{"model_type": "segformer", "id2label": {"a": "b", "c": "d", "e": "f"}}',
        '{"model_type": "segformer", "id2label": ["a"]}',
        '{"model_type": "segformer", "id2label": {"0": "one"}}',
    ],
)
def test_a_config_that_does_not_fit(text: str, tmp_path: Path) -> None:
    """A config that says nothing usable is not needed; one that is no JSON is damage."""
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(STATE, folder / "weights.pth")
    (folder / "config.json").write_text(text)
    try:
        card = segformer.load(folder).card
    except (ValueError, FileNotFoundError) as error:
        assert "folder" in str(error)  # noqa: PT017  # either is fine, but nothing else
    else:
        assert card.classes == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_prefixes_of_trainers_are_taken_off(prefix: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    state = {prefix + name: tensor for name, tensor in STATE.items()}
    save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
    assert read_checkpoint(path).state.keys() == STATE.keys()
    assert len(segformer.load(path).card.classes) == 3


def test_a_prefix_of_some_names_only_is_left(tmp_path: Path) -> None:
    torch.save(STATE | {"module.extra": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model\.pth: unknown tensor 'module\.extra'"):
        segformer.load(tmp_path / "model.pth")


PEAK = """
import sys, torch, segformer
from segformer.models.build import build_model

build_model("mit_b0", num_classes=2)(torch.zeros(1, 3, 32, 32))
def kilobytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
before = kilobytes("VmRSS")
model = segformer.load(sys.argv[1])
total = sum(p.sum(dtype=torch.float64).item() for p in model.parameters())  # touches what was only mapped
print(kilobytes("VmHWM") - before, total)
"""  # not ru_maxrss, which a process inherits from the one that started it


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", ["theirs", "ours"])
def test_loading_a_large_model_needs_little_more_than_its_file(kind: str, tmp_path: Path) -> None:
    theirs = transformers_model("mit_b5", 19)
    theirs.save_pretrained(tmp_path / "theirs")
    if kind == "ours":
        segformer.checkpoints.conversion.convert(tmp_path / "theirs", tmp_path / "ours", "segformer")
    size = (tmp_path / kind / "model.safetensors").stat().st_size / 1024
    command = [sys.executable, "-c", PEAK, str(tmp_path / kind)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, total = map(float, done.stdout.split())
    expected = sum(p.double().sum().item() for p in theirs.parameters())
    assert total == pytest.approx(expected, rel=1e-6)
    assert size < 10 * peak  # the measurement measures
    assert peak < 1.3 * size, f"{peak / size:.2f} times the file"
