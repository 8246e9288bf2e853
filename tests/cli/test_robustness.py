import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import write_folder
from robustness_results import made_up
from segformer.checkpoints.model_folder import save
from segformer.cli.main import main
from segformer.cli.robustness import print_result
from segformer.config import Preprocessing
from segformer.models.build import build_model
from segformer.published import TABLE_5
from segformer.robustness.corruptions import CORRUPTIONS, Corruption, corruption_groups
from segformer.robustness.sample import CorruptedSample

CLASSES = ("ground", "disc", "square")
FEW = ["--corruptions", "fog", "jpeg_compression", "--severities", "1", "3", "--workers", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    built = build_model("mit_b0", num_classes=3, preprocessing=Preprocessing(long_side=64, short_side=48))
    built.card = replace(built.card, classes=CLASSES)
    save(built, folder)
    return folder


def run(*arguments: object) -> int:
    """Exit status of the command line."""
    try:
        main(["robustness", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_from_command_to_page_and_on(
    model: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [model, "--data", small_data, "--out", tmp_path / "out", "--limit", 2, *FEW]
    assert run(*arguments) == 0
    first = capsys.readouterr()
    figures = json.loads((tmp_path / "out" / "robustness.json").read_text())
    clean, corrupted, retained = (figures[name] for name in ("clean", "corrupted", "retained"))
    line = f"mIoU clean {clean:.4f}  corrupted {corrupted:.4f}  retained {100 * retained:.0f} %"
    assert first.out.splitlines()[-1] == line
    assert first.err == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "robustness.json", "cells",
    }  # fmt: skip
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 5 + 1  # and identity.json
    (tmp_path / "out" / "cells" / "fog_3.json").unlink()
    assert run(*arguments) == 0
    second = capsys.readouterr()
    assert second.err == f"note: 4 of 5 measurements are already in {tmp_path / 'out'} and are not repeated\n"
    assert second.out == first.out


def test_ctrl_c_ends_with_130_and_the_next_run_resumes(
    model: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal is sent while the fourth image is read: the second of the second cell."""
    reads = []
    real = CorruptedSample.read

    def read(self: CorruptedSample, *decoding: object) -> object:
        reads.append(self)
        if len(reads) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *decoding)

    monkeypatch.setattr(CorruptedSample, "read", read)
    arguments = [model, "--data", small_data, "--out", tmp_path / "out", "--limit", 2, *FEW]
    assert run(*arguments) == 130
    stopped = capsys.readouterr()
    assert (
        stopped.err
        == f"note: the scores measured so far are stored in {tmp_path / 'out'}; run the same command to resume\n"
    )
    assert {path.name for path in (tmp_path / "out" / "cells").iterdir()} == {
        "clean.json", "identity.json", "jpeg_compression_1.json",
    }  # fmt: skip
    assert run(*arguments) == 0
    assert capsys.readouterr().err.startswith("note: 2 of 5 measurements are already in")


def test_bad_input_is_one_line(
    model: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def refused(*arguments: object) -> str:
        assert run(*arguments, "--out", out, "--workers", 0) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "did you mean 'snow'" in refused(model, "--data", small_data, "--corruptions", "snows")
    assert "severities must be from 1 to 5, got 6" in refused(model, "--data", small_data, "--severities", 6)
    assert "has no frost1.png" in refused(model, "--data", small_data, "--frost", tmp_path)
    assert "no model at" in refused(tmp_path / "nowhere", "--data", small_data)
    assert "no data folder" in refused(model, "--data", tmp_path / "nowhere")
    assert "has no split 'test'" in refused(model, "--data", small_data, "--split", "test")
    assert "limit must be at least 1" in refused(model, "--data", small_data, "--limit", 0)
    tiny = write_folder(tmp_path / "tiny", {"val": 1}, size=(30, 40))
    assert "000: an image to corrupt must be at least 32 x 32" in refused(model, "--data", tiny, "--corruptions", "fog")
    assert not (out / "report.html").exists()


def test_a_missing_package_is_named(
    model: Path, small_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert run(model, "--data", small_data) == 2
    assert "pip install 'segformer[robustness]'" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    """NumPy is imported, because the help lists the table of corruptions, which holds their functions."""
    code = "import sys; from segformer.cli.main import main\n"
    code += "try: main(['robustness', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'cv2') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"
    assert "--severities" in output
    assert all(name in output for name in CORRUPTIONS)


def test_a_corruption_added_to_the_table_works_everywhere(
    model: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def darken(image: np.ndarray, rng: np.random.Generator, factor: float) -> np.ndarray:
        return image * np.float32(factor)

    row = Corruption("lens", darken, ((0.8,), (0.6,), (0.4,), (0.2,), (0.1,)), "Dark")
    monkeypatch.setitem(CORRUPTIONS, "night_time", row)
    assert run("--help") == 0
    assert "night_time" in capsys.readouterr().out
    few = ["--corruptions", "fog", "night_time", "--severities", 1, 5, "--limit", 1, "--workers", 1, "--threads", 1]
    assert run(model, "--data", small_data, "--out", tmp_path / "out", *few) == 0
    assert "night_time" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert set(figures["corruptions"]) == {"fog", "night_time"}
    assert figures["corruptions"]["night_time"]["severities_in_mean"] == [1, 5]
    assert figures["groups"]["lens"] == figures["corruptions"]["night_time"]["miou"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "night time 1" in page
    assert "lens: severity, 0 is clean" in page
    main(["reproduce", "table5"])
    assert "Dark" in capsys.readouterr().out


def test_the_tables_fit_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = made_up(CLASSES)
    print_result(result, "model on toytown, val", Path("report.html"))
    main(["reproduce", "table5"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for group, names in corruption_groups().items():
        assert f"\n{group.capitalize()} " in text
        for name in names:
            assert name in text
            assert f"{100 * result.cells[name, 4].miou:.1f}" in text
            assert f"{100 * result.miou(name):.1f}" in text
    assert text.count("SegFormer-B5 *") == len(corruption_groups())
    assert "* reported by the paper, on Cityscapes-C" in text
    for method, figures in TABLE_5.items():
        parts = [line for line in text.splitlines() if line.startswith(f"{method}  ")]
        found = [part.removeprefix(method).split() for part in parts]
        assert [float(text) for part in found for text in part[1:] if text != "-"] == list(figures.values())[1:]
        assert {part[0] for part in found} == {str(figures["clean"])}
    assert "segformer robustness MODEL --data cityscapes=ROOT" in text
