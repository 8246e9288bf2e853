import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import draw_pair, write_folder
from segformer.checkpoints.model_folder import save
from segformer.cli import info as info_command
from segformer.cli import main as cli
from segformer.cli.main import main
from segformer.config import Preprocessing
from segformer.data.transforms import SegmentationTransform
from segformer.errors import UserError
from segformer.models.build import build_model

SMALL = ["--data.resize", "64", "48", "--data.crop", "40", "48", "--model.decoder-channels", "32"]
SMALL += ["--train.batch-size", "4", "--train.workers", "0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    save(build_model("mit_b0", num_classes=3, preprocessing=Preprocessing(long_side=64, short_side=48)), folder)
    card = json.loads((folder / "config.json").read_text()) | {"classes": ["ground", "disc", "square"]}
    (folder / "config.json").write_text(json.dumps(card))
    return folder


def run(*arguments: object) -> int:
    """Exit status of the command line."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a command that must be refused."""
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_the_whole_journey(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    arguments = ["--train.steps", "4", "--train.eval-every", "2", *SMALL]
    assert run("train", "--data", small_data, "--run-dir", runs, *arguments) == 0
    trained = capsys.readouterr().out.splitlines()
    assert trained[-1].startswith("mIoU 0.")
    assert run("evaluate", runs / "best", "--data", small_data, "--out", tmp_path / "scores") == 0
    assert capsys.readouterr().out.splitlines()[-1] == trained[-1]
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert f"mIoU {scores['mIoU']:.4f}" == trained[-1]
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["counts", "report.html", "scores.json"]
    images = small_data / "images" / "val"
    out = tmp_path / "out"
    outputs = ["mask", "overlay", "polygons", "scores"]
    assert run("predict", images, "--model", runs / "best", "--out", out, "--save", *outputs) == 0
    assert len(list(out.iterdir())) == 4 * len(list(images.iterdir()))
    mask = Image.open(out / "000.png")
    assert (mask.mode, mask.size) == ("P", (64, 48))
    assert np.asarray(mask).max() < 3
    large = tmp_path / "large"
    assert run("predict", images, "--model", runs / "best", "--out", large, "--window", "48") == 0
    assert sorted(path.name for path in large.iterdir()) == sorted(path.name for path in images.iterdir())
    assert Image.open(large / "000.png").size == (64, 48)
    capsys.readouterr()
    line = refused(capsys, "predict", images, "--model", runs / "best", "--out", large, "--window", "0")
    assert "--window must be at least 32 pixels, got 0" in line
    assert run("info", runs / "best") == 0
    assert "mit_b0" in capsys.readouterr().out


def test_two_models_are_compared(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = []
    for seed in (1, 2):
        arguments = ["--train.steps", "2", "--train.eval-every", "2", "--train.seed", seed, *SMALL]
        assert run("train", "--data", small_data, "--run-dir", tmp_path / str(seed), *arguments) == 0
        models.append(tmp_path / str(seed) / "best")
    capsys.readouterr()
    out = tmp_path / "out"
    assert run("evaluate", models[0], "--compare", models[1], "--data", small_data, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["mIoU", "mIoU"]
    assert any("permutation" in line for line in lines[-6:-2])
    page = (out / "comparison.html").read_text()
    assert all(name in page for name in ("ground", "disc", "square", "mean"))
    first, second = (json.loads((out / name / "scores.json").read_text())["mIoU"] for name in ("first", "second"))
    assert lines[-2:] == [f"mIoU {first:.4f}", f"mIoU {second:.4f}"]
    line = refused(
        capsys, "submission", models[0], small_data / "images/val", "--to", "ade20k", "--out", tmp_path / "s"
    )
    assert "needs a model of its 150 classes" in line


def test_classes_are_relabeled_in_training_and_in_evaluation(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabel = ["disc", "thing", "square", "thing"]
    arguments = ["--train.steps", "1", *SMALL, "--run-dir", tmp_path / "run", "--data.relabel", *relabel]
    assert run("train", "--data", small_data, *arguments) == 0
    trained = capsys.readouterr().out.splitlines()[-1]
    assert run("evaluate", tmp_path / "run" / "best", "--data", small_data, "--relabel", *relabel) == 0
    assert capsys.readouterr().out.splitlines()[-1] == trained
    assert "has 3 (ground" in refused(capsys, "evaluate", tmp_path / "run" / "best", "--data", small_data)


def test_no_arguments_and_help() -> None:
    assert run() == 0
    for command in ("demo", "train", "evaluate", "predict", "info"):
        assert run(command, "--help") == 0


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--list") == 0
    assert "camvid_b0_quick" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import segformer

    assert run("--version") == 0
    assert capsys.readouterr().out == f"segformer {segformer.__version__}\n"


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, segformer, segformer.cli.main\ntry: segformer.cli.main.main(['--help'])\nexcept SystemExit: pass\n"
    )
    code += "print([m for m in ('torch', 'numpy', 'PIL', 'lightning_fabric') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import segformer; print(sorted(set(sys.modules) - before))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "numpy", "tyro", "rich"} & set(eval(output))


def test_missing_things(small_data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    nowhere = tmp_path / "nowhere"
    assert "nowhere.jpg" in refused(capsys, "predict", f"{nowhere}.jpg", "--model", model, "--out", out)
    assert "no model at" in refused(capsys, "predict", small_data, "--model", nowhere, "--out", out)
    assert "no model at" in refused(capsys, "evaluate", nowhere, "--data", small_data)
    assert "no data folder" in refused(capsys, "evaluate", model, "--data", nowhere)
    assert "no split 'test'; it has train, val" in refused(
        capsys, "evaluate", model, "--data", small_data, "--split", "test"
    )
    assert "no data folder" in refused(capsys, "train", "--data", nowhere)
    assert "train needs a RECIPE" in refused(capsys, "train")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images in this folder" in refused(capsys, "predict", empty, "--model", model, "--out", out)
    assert "found no images/" in refused(capsys, "train", "--data", empty)
    assert not out.exists()


def test_unknown_names(capsys: pytest.CaptureFixture[str], small_data: Path, tmp_path: Path) -> None:
    assert "did you mean 'camvid_b0'" in refused(capsys, "train", "camvid")
    assert "no such recipe" in refused(capsys, "train", tmp_path / "recipe.json")
    for arguments in (
        ["train", "camvid_b0_quick", "--train.lrr", "1"],
        ["train", "--data", small_data, "--train.steps", "0"],
        ["trian"],
    ):
        refused(capsys, *arguments)
    assert "did you mean '--train.lr'?" in refused(capsys, "train", "camvid_b0_quick", "--train.lrr", "1")


def test_a_recipe_file_with_an_unknown_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from segformer.json_config import to_json
    from segformer.recipes import RECIPES

    values = to_json(RECIPES["folder_b0"])
    values["train"]["lrr"] = 1
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    line = refused(capsys, "train", path)
    assert "unknown field 'train.lrr'; did you mean 'lr'?" in line
    assert "mine.json" in line


def test_damaged_images_are_named_and_the_others_segmented(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    Image.fromarray(draw_pair(0)[0]).save(images / "good.jpg")
    (images / "text.jpg").write_text("not an image")
    (images / "short.jpg").write_bytes((images / "good.jpg").read_bytes()[:400])
    assert run("predict", images, "--model", model, "--out", out) == 2
    errors = capsys.readouterr().err
    assert "text.jpg: expected an image" in errors
    assert "short.jpg: damaged image" in errors
    assert "Traceback" not in errors
    assert sorted(p.name for p in out.iterdir()) == ["good.png", "good_overlay.png"]


def test_bad_masks_are_named(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = small_data / "masks" / "train" / "004.png"
    good = mask.read_bytes()
    arguments = ["train", "--data", small_data, *SMALL, "--train.steps", "3", "--run-dir"]
    Image.fromarray(np.zeros((20, 30), dtype=np.uint8)).save(mask)
    line = refused(capsys, *arguments, tmp_path / "size")
    assert "004.png: 1 mask of another size than the image: expected 48 x 64 (height x width), got 20 x 30" in line
    Image.fromarray(np.full((48, 64), 7, dtype=np.uint8)).save(mask)
    line = refused(capsys, *arguments, tmp_path / "range")
    assert "004.png: expected labels 0-2 or 255 (ignored), got 7" in line
    mask.write_bytes(good[:60])
    assert "004.png: damaged image" in refused(capsys, *arguments, tmp_path / "damaged")
    mask.unlink()
    assert "004.png: no mask for the image" in refused(capsys, *arguments, tmp_path / "missing")


def test_a_model_of_another_class_count(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "data", {"val": 1})
    description = {"classes": ["a", "b", "c", "d"]}
    (data / "dataset.json").write_text(json.dumps(description))
    line = refused(capsys, "evaluate", model, "--data", data)
    assert "the model has 3 classes (ground, disc, square)" in line
    assert "has 4 (a, b, c, d)" in line


def test_a_damaged_model(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_data: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes((model / "config.json").read_bytes())
    assert "it has no model.safetensors" in refused(capsys, "evaluate", copy, "--data", small_data)
    (copy / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    assert "model.safetensors: damaged" in refused(capsys, "evaluate", copy, "--data", small_data)


@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_full_disk(command: str, small_data: Path, model: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the same write fails, with the same kind of error."""
    where = tmp_path / "results"
    arguments = {
        "train": ["train", "--data", small_data, *SMALL, "--train.steps", "1", "--run-dir", where],
        "predict": ["predict", small_data / "images" / "val", "--model", model, "--out", where, "--save", "scores"],
    }[command]
    limit = {"train": 1 << 20, "predict": 1 << 10}[command]
    finished = subprocess.run(
        [sys.executable, "-m", "segformer", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert finished.returncode == 2, finished.stderr
    assert "no space to write this file" in finished.stderr
    assert "Traceback" not in finished.stderr
    left = [p for p in where.rglob("*") if "partial" in p.name or p.suffix in (".safetensors", ".npz")]
    assert not left


def test_a_device_that_is_not_there(model: Path, small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "evaluate", model, "--data", small_data, "--device", "tpu")
    assert "--device must be auto, cpu, cuda, cuda:N or mps, got 'tpu'" in line


def test_inspect_says_ready_or_what_to_mend(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("inspect", small_data, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ready"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"diagnosis.json", "pairs.png", "augmented.png"}
    (small_data / "masks" / "train" / "002.png").unlink()
    assert run("inspect", small_data) == 2
    assert "002.png" in capsys.readouterr().out
    assert "no data folder" in refused(capsys, "inspect", tmp_path / "nowhere")


def test_a_bad_mask_in_a_worker_is_one_line(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = small_data / "masks" / "train" / "004.png"
    Image.fromarray(np.full((48, 64), 7, dtype=np.uint8)).save(mask)
    arguments = ["train", "--data", small_data, *SMALL[:-1], "2", "--train.steps", "3", "--run-dir", tmp_path / "run"]
    assert refused(capsys, *arguments).startswith(f"error: {mask}: expected labels 0-2 or 255 (ignored), got 7")


def test_what_a_newcomer_may_ask_for(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume needs to know the run" in refused(capsys, "train", "--resume")
    channels = ["--model.in-channels", "4", "--preprocessing.mean", *"1234", "--preprocessing.std", *"1234"]
    line = refused(capsys, "train", "--data", small_data, *SMALL, *channels, "--run-dir", tmp_path / "run")
    assert "model.in_channels must be 3 for preprocessing.pixels rgb, got 4; set preprocessing.pixels raw" in line
    assert "train.lr must be positive" in refused(capsys, "train", "--data", small_data, "--train.lr", "-1")


def raising(error: BaseException) -> Callable[[object], None]:
    def command(_: object) -> None:
        raise error

    return command


def test_a_missing_package_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'lightning_fabric'", name="lightning_fabric.plugins")
    monkeypatch.setattr(info_command, "run", raising(missing))
    assert "needs the package lightning_fabric: pip install 'segformer[train]'" in refused(capsys, "info", "x")


def test_every_extra_is_one_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(cli.EXTRAS.values()) <= set(project["optional-dependencies"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("first\n  second"), "error: first second"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.jpg"),
            "error: a.jpg: No such file or directory",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a.jpg"), "error: a.jpg: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: [Errno 28] No space left on device"),
        (MemoryError(), "error: out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "error: out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: out of memory"),
    ],
)
def test_what_a_user_can_cause_is_one_line_and_status_2(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info_command, "run", raising(error))
    assert refused(capsys, "info", "x").startswith(message)


def bug(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    """Return the one line of a command that fails by a bug, and the traceback in the file that the line names."""
    assert run(*arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    path = Path(line.rpartition(" is in ")[2])
    text = path.read_text()
    path.unlink()
    return line, text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("planted"),
        KeyError("planted"),
        ModuleNotFoundError("No module named 'planted'", name="planted"),
        OSError(errno.EBADF, "planted"),
        BrokenPipeError(errno.EPIPE, "planted"),
        AssertionError("planted"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_is_one_line_that_names_a_file_with_the_traceback(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(info_command, "run", raising(error))
    line, text = bug(capsys, "info", "x")
    assert line.startswith(f"error: this is a bug in segformer ({type(error).__name__}: ")
    assert f"the traceback is in {tmp_path}/segformer-" in line
    assert "Traceback (most recent call last)" in text
    assert "planted" in text


def test_a_bug_in_a_loading_process_is_told_the_same_way(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(SegmentationTransform, "__call__", broken)
    arguments = ["train", "--data", small_data, *SMALL[:-1], "2", "--train.steps", "3", "--run-dir", tmp_path / "run"]
    line, text = bug(capsys, *arguments)
    assert "planted" in line
    assert "planted" in text


def test_a_traceback_is_raised_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGFORMER_TRACEBACK", "1")
    monkeypatch.setattr(info_command, "run", raising(ValueError("planted")))
    with pytest.raises(ValueError, match="planted"):
        main(["info", "x"])


PLANTED = """
import os, signal, sys
from segformer.cli import info, main
def run(arguments):
    {body}
info.run = run
main.main(["info", "x"])
"""


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ('raise ValueError("planted")', 1, "error: this is a bug in segformer (ValueError: planted)"),
        ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", 143, ""),
        ("os.kill(os.getpid(), signal.SIGINT); signal.pause()", 130, ""),
        ('open("/nowhere/at/all")', 2, "error: /nowhere/at/all: No such file or directory"),
    ],
)
def test_exit_statuses_of_a_process(body: str, status: int, message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PLANTED.format(body=body)]
    finished = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert finished.returncode == status, finished.stderr
    assert finished.stderr.startswith(message)
    assert len(finished.stderr.splitlines()) == bool(message)
    assert len(list(tmp_path.iterdir())) == (status == 1)


def test_a_reader_that_ends_early_is_no_error() -> None:
    command = f"{sys.executable} -m segformer train --list | head -1; echo ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert finished.stderr == ""
    assert finished.stdout.splitlines()[-1] in ("0", "141")
