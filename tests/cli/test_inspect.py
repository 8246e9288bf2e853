import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import write_folder
from planted_faults import FAULTS, WARNINGS, absent_class, image_without_mask
from segformer.cli.inspect import print_diagnosis, sizes_text
from segformer.cli.main import main
from segformer.data.doctor.contents import Split
from segformer.data.doctor.diagnosis import diagnose


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_the_report_names_each_fault_its_files_and_the_verdict(
    plant: Callable[[Path], list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(tmp_path / "data", {"train": 8, "val": 4}, size=(96, 128))
    files = plant(root)
    print_diagnosis(diagnose(root))
    text = " ".join(capsys.readouterr().out.split())
    assert all(path.name in text for path in files[:3])
    assert text.endswith("ready" if plant.__name__ in WARNINGS else "then inspect again")


@pytest.mark.parametrize("columns", [None, "80", "50"])
def test_a_report_fits_the_terminal_but_for_what_is_copied(
    columns: str | None, small_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    image_without_mask(small_data)
    absent_class(small_data)
    monkeypatch.chdir(small_data)
    print_diagnosis(diagnose("."))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "."
    assert re.fullmatch(r"split +images +ignored +channels( +size \(height x width\))?", lines[1])
    if columns is not None:
        assert max(len(line) for line in lines if not line.startswith("    ")) <= int(columns)
    (command,) = [line for line in lines if line.startswith("    rm ")]
    assert command.split()[:2] == ["rm", "images/train/002.png"]
    assert " ".join(lines[-2:]).endswith("not ready: fix 1 error and look at 1 warning, then inspect again")


def test_sizes_are_listed_up_to_three() -> None:
    split = Split(9, {(4, 5): 4, (5, 4): 3, (6, 6): 1, (7, 7): 1}, {}, (), 0)
    assert sizes_text(split) == "4 x 5 (4), 5 x 4 (3), 6 x 6 (1), 1 more"
    assert sizes_text(Split(4, {(4, 5): 4}, {}, (), 0)) == "4 x 5"


def test_the_command_writes_its_files_and_ends_with_the_verdict(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["inspect", str(small_data), "--cheap", "--out", str(out)])
    assert capsys.readouterr().out.splitlines()[-1] == "ready"
    assert {path.name for path in out.iterdir()} == {"diagnosis.json", "pairs.png", "augmented.png"}
    found = json.loads((out / "diagnosis.json").read_text())
    assert not [key for key in keys_of(found) if not re.fullmatch(r"\w+", key)]
    mask = next((small_data / "masks" / "train").iterdir())
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(mask)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(small_data), "--cheap"])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "1 mask of another size than the image" in printed.out
    assert printed.err == ""


def keys_of(values: object) -> list[str]:
    if isinstance(values, dict):
        return [*values, *(key for value in values.values() for key in keys_of(value))]
    return [key for value in values for key in keys_of(value)] if isinstance(values, list) else []
