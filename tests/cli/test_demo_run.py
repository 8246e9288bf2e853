import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.cli.main import main
from segformer.data.sources import toytown


def test_the_demo_leaves_a_report_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(toytown, "SPLITS", {"train": range(8), "val": range(8, 10), "test": range(10, 16)})
    out = tmp_path / "demo"
    for _ in range(2):  # a second demo replaces the first
        main(["demo", "--out", str(out), "--steps", "2"])
    printed = capsys.readouterr().out
    assert "mIoU 0." in printed
    assert "report.html" in printed
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'<img src="data:image/', page)) == 6 * 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    for kind in ("", "_overlay", "_image"):
        assert Image.open(out / "predictions" / f"scene_000010{kind}.png").size == (320, 192)
    assert np.asarray(Image.open(out / "predictions" / "scene_000010.png")).max() < 8
    assert json.loads((out / "run" / "recipe.json").read_text())["train"]["steps"] == 2


@pytest.mark.slow
def test_the_demo_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--out", str(tmp_path / "demo")])
    printed = capsys.readouterr().out
    trained, untrained = map(float, re.findall(r"mIoU ([\d.]+) on unseen scenes, ([\d.]+) untrained", printed)[0])
    assert trained >= 0.60
    assert trained >= 3 * untrained
    ious = dict(re.findall(r"(?m)^(\w+) +([\d.]+)$", printed))
    assert set(ious) == set(toytown.CLASSES)
    assert all(float(iou) > 0.3 for iou in ious.values())  # each class has at least 1 % of the pixels
