"""What the benchmarks count with; their timing is no part of it."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import segformer
from benchmarks import attention, inference, jpeg, kernels, tables
from benchmarks.inference import BASELINE
from benchmarks.machine import by_way, command_line, interleaved, sides
from benchmarks.ways import LAST, WAYS, Task, ways_on


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A random model in all three layouts."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model = segformer.build_model("mit_b0", num_classes=4)
    model.decoder.classifier.weight.data.mul_(40)
    inference.write_models(inference.widened(model, 9), folder)
    return Task(folder, (64, 96), batch=2)


EAGER = [way for way in ways_on("cpu") if "eager" in way]


@pytest.mark.parametrize("way", EAGER)
def test_a_way_gives_the_masks_of_the_baseline(way: str, task: Task) -> None:
    images = inference.pictures(task.size, task.batch)
    mask = WAYS[way](task).mask(images)
    assert mask.shape == (2, 64, 96)
    assert mask.unique().numel() > 1
    least = 0.9 if "smp" in way or "bf16" in way else 0.99  # smp aligns corners
    assert (mask == WAYS[BASELINE](task).mask(images)).float().mean() > least


@pytest.mark.parametrize("way", [way for way in EAGER if "smp" not in way])
def test_the_stages_of_a_way_are_all_of_it(way: str, task: Task) -> None:
    images = inference.pictures(task.size, task.batch)
    built = WAYS[way](task)
    assert torch.equal(jpeg.chained(built.stages, images), built.mask(images))
    assert list(built.stages)[-1] == LAST


def test_ways_of_a_device() -> None:
    assert {"transformers openvino bf16", "ours onnxruntime fp32"} <= set(ways_on("cpu"))
    assert not any("fp16" in way for way in ways_on("cpu"))
    kinds = ("transformers eager", "transformers compile", "ours eager", "ours compile")
    on_a_gpu = {f"{kind} {precision}" for kind in kinds for precision in ("fp32", "bf16", "fp16")}
    assert set(ways_on("cuda")) == on_a_gpu | {"smp eager fp32"}


def test_words_choose_ways() -> None:
    assert inference.wanted_ways("cpu", ("ours compile",)) == [BASELINE, "ours compile fp32", "ours compile bf16"]
    assert inference.wanted_ways("cuda", ("all",)) == ways_on("cuda")


def test_a_row_replaces_that_of_its_setting() -> None:
    rows = [{"model": "b0", "size": "64x64", "device": "cpu", "batch": batch, "classes": 9} for batch in (1, 2)]
    again = rows[0] | {"rounds": 3}
    assert inference.with_row(rows, again) == [rows[1], again]
    other = rows[0] | {"model": "b2"}
    assert inference.with_row(rows, other) == [*rows, other]


def test_shares_of_the_peak() -> None:
    parts = {"preprocessing": 9.0, "encoder": 3.0, "decoder": 1.0, LAST: 9.0}
    stages = {"transformers eager fp32": parts, "ours eager fp32": parts, "ours eager bf16": parts}
    stages["ours openvino fp32"] = {"graph": 2.0, LAST: 9.0}
    shares = inference.shares_of_the_peak(stages, macs=40, peak=20.0)
    assert shares == {"ours eager fp32": 0.5, "ours openvino fp32": 1.0}


def test_share_of_mixed_cells() -> None:
    winners = torch.tensor([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    logits = torch.nn.functional.one_hot(winners, 2).permute(2, 0, 1)[None].float()
    assert inference.mixed_share(logits) == 0.5


def test_turns_go_there_and_back() -> None:
    called: list[str] = []
    seconds = interleaved({name: partial(called.append, name) for name in "abc"}, 2)
    assert "".join(called) == "cbaabc"
    assert [len(values) for values in seconds.values()] == [2, 2, 2]


def test_stages_come_together_by_way() -> None:
    assert by_way({("a", "x"): [1.0, 3.0, 2.0], ("a", "y"): [4.0], ("b", "x"): [5.0]}) == {
        "a": {"x": 2.0, "y": 4.0}, "b": {"x": 5.0},
    }  # fmt: skip


def test_memory_is_that_of_one_call() -> None:
    """In a process of its own, where nothing has been given back before."""
    program = (
        "import torch; from benchmarks.machine import memory_of; print(memory_of(lambda: torch.ones(2**24), 'cpu'))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert float(run.stdout) == pytest.approx(64, abs=16)


@pytest.mark.parametrize("size", [(512, 512), (540, 960), (1200, 1400)])
def test_our_file_becomes_what_their_processors_make_of_it(size: tuple[int, int], tmp_path: Path) -> None:
    model = segformer.build_model("mit_b0", num_classes=2)
    jpeg.street((270, 480)).save(tmp_path / "street.jpg")
    ours, whole = jpeg.our_stages(model, size, "cpu", antialias=True)
    pixels = whole(tmp_path / "street.jpg")
    assert pixels.shape == (1, 3, *size)
    assert torch.equal(jpeg.chained(ours, tmp_path / "street.jpg"), pixels)
    for kind, processor in jpeg.their_processors().items():
        stages, whole = jpeg.their_stages(kind, processor, model.card.preprocessing, size, "cpu")
        found = {"theirs": whole(tmp_path / "street.jpg"), "ours": pixels}
        assert jpeg.apart(found, "theirs", model.card.preprocessing.std)["ours"] < 0.5
        assert torch.allclose(jpeg.chained(stages, tmp_path / "street.jpg"), found["theirs"], atol=0.02)


def test_kernels_are_found_equal_and_their_faults_found(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shape = (2, 5, 12, 17)
    assert kernels.check(shape, "bf16", True, "cpu")["equal"]
    exact = kernels.upsample_argmax
    monkeypatch.setattr(kernels, "upsample_argmax", lambda *arguments: exact(*arguments).roll(1, 2))
    found = kernels.check(shape, "fp32", False, "cpu")
    assert found["wrong pixels"] > 0
    assert not found["equal"]
    monkeypatch.undo()
    loss = kernels.upsample_cross_entropy
    monkeypatch.setattr(kernels, "upsample_cross_entropy", lambda *a, **options: 1.001 * loss(*a, **options))
    assert not kernels.check(shape, "fp32", False, "cpu")["equal"]


def test_the_floor_by_hand() -> None:
    case = kernels.smooth((1, 3, 8, 16), "bf16", "cpu")
    assert case.logits.shape == (1, 3, 2, 4)
    assert kernels.bytes_moved(case) == {
        "arg-max": 24 * 2 + 128 * 8,  # logits of two bytes, a mask of eight
        "cross-entropy": 2 * 24 * 2 + 128,  # logits and their gradient, labels of one byte
    }
    found = kernels.figures(ours=0.004, reference=0.008, moved=2000, bandwidth=1e6)
    assert found["floor, ms"] == pytest.approx(2)
    assert found["share of the bandwidth floor"] == pytest.approx(0.5)
    assert found["times as fast"] == pytest.approx(2)


def test_attention_as_a_stage_has_it() -> None:
    row = attention.measure("b2", "64x96", 1, "fp32", batch=1, rounds=1, device="cpu")
    assert row["shape"] == "2 x 96 x 6 x 64"
    assert {attention.PICKED, "math", "flash"} <= row["seconds"].keys()
    assert "cudnn" not in row["seconds"]  # no CPU has it


@pytest.mark.parametrize("size", ["512", "512x", "axb", "16x512", "-64x64"])
def test_a_bad_size(size: str) -> None:
    with pytest.raises(ValueError, match="a size must be HxW"):
        sides(size)


@pytest.mark.parametrize("name", ["inference", "attention"])
@pytest.mark.parametrize(("option", "value"), [("--sizes", "512"), ("--models", "b9")])
def test_what_a_user_can_mend_is_one_line(
    name: str, option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, option, value])
    with pytest.raises(SystemExit) as ended:
        command_line({"inference": inference, "attention": attention}[name].main)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert value in line


@pytest.mark.parametrize("shape", ["1x2x3", "1x0x8x8", "1x256x8x8"])
def test_a_bad_shape(shape: str) -> None:
    with pytest.raises(ValueError, match="a shape must be"):
        kernels.parsed(shape)


def test_a_table_has_the_precisions_and_the_batch_of_its_row() -> None:
    ways = {"transformers eager fp32": 2.0, "ours eager fp32": 0.5, "ours eager fp16": 0.25}
    row = {
        "model": "b0", "size": "64x96", "device": "cuda", "batch": 16, "classes": 9, "rounds": 3, "mixed": 0.25,
        "seconds": ways, "times as fast": {way: 2 / value for way, value in ways.items()},
        "equal": dict.fromkeys(ways, 1.0), "memory, MiB": {},
    }  # fmt: skip
    heading, *lines = tables.table(row).splitlines()
    assert heading.startswith("**MiT-B0, 64 x 96, batch 16**, 9 classes")
    assert lines == [
        "",
        "| | fp32 | fp16 |",
        "|---|---|---|",
        "| transformers eager | 1.0 (100.0 %) | - |",
        "| ours eager | **4.0** (100.0 %) | **8.0** (100.0 %) |",
    ]
