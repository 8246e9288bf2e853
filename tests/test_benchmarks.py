"""What the benchmarks compute, apart from their timing."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import segformer
from benchmarks import attention, inference, jpeg, kernels, tables
from benchmarks.inference import BASELINE
from benchmarks.machine import interleaved, parse_size, run_command_line, stage_medians
from benchmarks.pipelines import LAST, PIPELINES, Setting, pipelines_on
from segformer.errors import UserError


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A random model in all three layouts."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model = segformer.build_model("mit_b0", num_classes=4)
    model.decoder.classifier.weight.data.mul_(40)
    inference.write_models(inference.widen(model, 9), folder)
    return Setting(folder, (64, 96), batch=2)


EAGER = [name for name in pipelines_on("cpu") if "eager" in name]


@pytest.mark.parametrize("name", EAGER)
def test_a_pipeline_gives_the_masks_of_the_baseline(name: str, setting: Setting) -> None:
    images = inference.draw_batch(setting.size, setting.batch)
    mask = PIPELINES[name](setting).mask(images)
    assert mask.shape == (2, 64, 96)
    assert mask.unique().numel() > 1
    least = 0.9 if "smp" in name or "bf16" in name else 0.99  # smp aligns corners
    assert (mask == PIPELINES[BASELINE](setting).mask(images)).float().mean() > least


@pytest.mark.parametrize("name", [name for name in EAGER if "smp" not in name])
def test_the_stages_of_a_pipeline_give_its_mask(name: str, setting: Setting) -> None:
    images = inference.draw_batch(setting.size, setting.batch)
    pipeline = PIPELINES[name](setting)
    assert torch.equal(jpeg.run_stages(pipeline.stages, images), pipeline.mask(images))
    assert list(pipeline.stages)[-1] == LAST


def test_pipelines_of_a_device() -> None:
    assert {"transformers openvino bf16", "ours onnxruntime fp32"} <= set(pipelines_on("cpu"))
    assert not any("fp16" in name for name in pipelines_on("cpu"))
    kinds = ("transformers eager", "transformers compile", "ours eager", "ours compile")
    on_a_gpu = {f"{kind} {precision}" for kind in kinds for precision in ("fp32", "bf16", "fp16")}
    assert set(pipelines_on("cuda")) == on_a_gpu | {"smp eager fp32"}


def test_words_choose_pipelines() -> None:
    compiled = [BASELINE, "ours compile fp32", "ours compile bf16"]
    assert inference.choose_pipelines("cpu", ("ours compile",)) == compiled
    assert inference.choose_pipelines("cuda", ("all",)) == pipelines_on("cuda")


def test_a_row_replaces_the_earlier_one_of_its_setting() -> None:
    rows = [{"model": "b0", "size": "64x64", "device": "cpu", "batch": batch, "classes": 9} for batch in (1, 2)]
    again = rows[0] | {"rounds": 3}
    assert inference.replace_row(rows, again) == [rows[1], again]
    other = rows[0] | {"model": "b2"}
    assert inference.replace_row(rows, other) == [*rows, other]


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


def test_every_second_round_runs_in_reverse() -> None:
    called: list[str] = []
    seconds = interleaved({name: partial(called.append, name) for name in "abc"}, 2)
    assert "".join(called) == "cbaabc"
    assert [len(values) for values in seconds.values()] == [2, 2, 2]


def test_medians_of_stages() -> None:
    assert stage_medians({("a", "x"): [1.0, 3.0, 2.0], ("a", "y"): [4.0], ("b", "x"): [5.0]}) == {
        "a": {"x": 2.0, "y": 4.0}, "b": {"x": 5.0},
    }  # fmt: skip


def test_memory_of_a_call() -> None:
    """Measured in a process of its own, which has freed nothing before."""
    program = (
        "import torch; from benchmarks.machine import peak_memory; print(peak_memory(lambda: torch.ones(2**24), 'cpu'))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert float(run.stdout) == pytest.approx(64, abs=16)


@pytest.mark.parametrize("size", [(512, 512), (540, 960), (1200, 1400)])
def test_a_file_becomes_the_same_input_as_with_their_processors(size: tuple[int, int], tmp_path: Path) -> None:
    model = segformer.build_model("mit_b0", num_classes=2)
    jpeg.draw_street((270, 480)).save(tmp_path / "street.jpg")
    ours, whole = jpeg.our_stages(model, size, "cpu", antialias=True)
    pixels = whole(tmp_path / "street.jpg")
    assert pixels.shape == (1, 3, *size)
    assert torch.equal(jpeg.run_stages(ours, tmp_path / "street.jpg"), pixels)
    for kind, processor in jpeg.find_processors().items():
        stages, whole = jpeg.their_stages(kind, processor, model.card.preprocessing, size, "cpu")
        found = {"theirs": whole(tmp_path / "street.jpg"), "ours": pixels}
        assert jpeg.gray_levels_apart(found, "theirs", model.card.preprocessing.std)["ours"] < 0.5
        assert torch.allclose(jpeg.run_stages(stages, tmp_path / "street.jpg"), found["theirs"], atol=0.02)


def test_the_check_of_the_kernels_finds_faults(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_attention_of_a_stage() -> None:
    row = attention.measure("b2", "64x96", 1, "fp32", batch=1, rounds=1, device="cpu")
    assert row["shape"] == "2 x 96 x 6 x 64"
    assert {attention.PICKED, "math", "flash"} <= row["seconds"].keys()
    assert "cudnn" not in row["seconds"]  # CUDA only


@pytest.mark.parametrize("size", ["512", "512x", "axb", "16x512", "-64x64"])
def test_a_bad_size(size: str) -> None:
    with pytest.raises(UserError, match="a size must be HxW"):
        parse_size(size)


@pytest.mark.parametrize("name", ["inference", "attention"])
@pytest.mark.parametrize(("option", "value"), [("--sizes", "512"), ("--models", "b9")])
def test_a_wrong_argument_is_reported_on_one_line(
    name: str, option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, option, value])
    with pytest.raises(SystemExit) as ended:
        run_command_line({"inference": inference, "attention": attention}[name].main)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert value in line


@pytest.mark.parametrize("shape", ["1x2x3", "1x0x8x8", "1x256x8x8", "1xax8x8"])
def test_a_bad_shape(shape: str) -> None:
    with pytest.raises(UserError, match="a shape must be"):
        kernels.parse_shape(shape)


def test_a_table_shows_precisions_and_batch() -> None:
    seconds = {"transformers eager fp32": 2.0, "ours eager fp32": 0.5, "ours eager fp16": 0.25}
    row = {
        "model": "b0", "size": "64x96", "device": "cuda", "batch": 16, "classes": 9, "rounds": 3, "mixed": 0.25,
        "seconds": seconds, "times as fast": {name: 2 / value for name, value in seconds.items()},
        "equal": dict.fromkeys(seconds, 1.0), "memory, MiB": {},
    }  # fmt: skip
    heading, *lines = tables.inference_table(row).splitlines()
    assert heading.startswith("**MiT-B0, 64 x 96, batch 16**, 9 classes")
    assert lines == [
        "",
        "| | fp32 | fp16 |",
        "|---|---|---|",
        "| transformers eager | 1.0 (100.0 %) | - |",
        "| ours eager | **4.0** (100.0 %) | **8.0** (100.0 %) |",
    ]
