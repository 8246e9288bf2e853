from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import segformer
from segformer.checkpoints.conversion import targets
from segformer.checkpoints.formats import FORMATS
from segformer.cli.main import main
from segformer.models.build import build_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    segformer.save(build_model("mit_b0", num_classes=3, decoder_channels=32), tmp_path / "model")
    return tmp_path / "model"


def test_notes_go_to_standard_error(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["convert", str(model), str(tmp_path / "out"), "--to", "smp"])
    printed = capsys.readouterr()
    assert printed.out == f"wrote {tmp_path / 'out'} (smp)\n"
    notes = printed.err.splitlines()
    assert len(notes) == 3
    assert all(line.startswith("note: segmentation-models-pytorch ") for line in notes)
    assert len(segformer.load(tmp_path / "out").card.classes) == 3


def test_without_a_format_a_model_folder_is_written(model: Path, tmp_path: Path) -> None:
    main(["convert", str(model), str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def refusal(capsys: pytest.CaptureFixture[str], run: Callable[[], None]) -> str:
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


def test_what_cannot_be_done_is_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, lambda: main(["convert", str(model), str(model)]))
    assert line == f"error: {model} already exists; choose another name"
    line = refusal(capsys, lambda: main(["convert", str(model), str(tmp_path / "out"), "--to", "nvlab"]))
    assert line.endswith("got 'nvlab'; did you mean 'nvlabs'?")
    line = refusal(capsys, lambda: main(["convert", str(model), str(tmp_path / "out"), "--to", "tao"]))
    assert line == f"error: --to must be one of {', '.join(targets())}; got 'tao'"


def test_help_lists_the_rows_of_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(FORMATS, "added", replace(FORMATS["nvlabs"]))
    with pytest.raises(SystemExit) as stopped:
        main(["convert", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Readable formats of other projects: {', '.join(FORMATS)}." in text
    assert f"Format to write. One of: {', '.join(targets())}." in text
    assert {"segformer", "hf", "smp", "nvlabs", "added"} <= set(targets())
