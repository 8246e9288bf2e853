import html as markup
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from segformer.config import Preprocessing
from segformer.data.dataset import DataSource
from segformer.data.sources.toytown import open_source
from segformer.evaluation.metrics import Scores
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from segformer.paper.tables import reproduce
from segformer.robustness.cells import Robustness
from segformer.robustness.corruptions import GROUPS, NAMES, SEVERITIES
from segformer.robustness.page import above_overlay, in_halves, words, write_results
from segformer.robustness.table5 import HEADINGS, TABLE_5, figures_of, print_robustness, table5

SETTING = {"data": "toytown", "number of images": 2, "seed": 0, "frost": "drawn", "protocol": {"flip": False}}


@pytest.fixture(scope="module")
def source() -> DataSource:
    return open_source("")


@pytest.fixture(scope="module")
def model(source: DataSource) -> Segmenter:
    torch.manual_seed(0)
    small = Preprocessing(long_side=64, short_side=32)
    return build_model("mit_b0", num_classes=len(source.classes), decoder_channels=16, preprocessing=small).eval()


def made_up(source: DataSource, names: tuple[str, ...] = NAMES, severities: tuple[int, ...] = SEVERITIES) -> Robustness:
    """Scores that fall with severity, each corruption's a little below the one before."""

    def scores(right: int) -> Scores:
        count = len(source.classes)
        return Scores(np.eye(count, dtype=np.int64) * (right - 5) + 5, source.classes)

    cells = {(name, s): scores(300 - 40 * s - 2 * NAMES.index(name)) for name in names for s in severities}
    return Robustness(scores(400), cells, SETTING)


def cells_of(page: str) -> list[list[str]]:
    """Texts of the cells of all rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]


def test_table_5_is_complete() -> None:
    assert {group: tuple(names) for group, names in HEADINGS.items()} == GROUPS
    assert len(TABLE_5) == 14
    assert {len(figures) for figures in TABLE_5.values()} == {17}
    assert all(0 < figure < figures[0] for figures in TABLE_5.values() for figure in figures[1:])
    assert TABLE_5["SegFormer-B5"][0] == 82.4
    gain = TABLE_5["SegFormer-B5"][5] / TABLE_5["ICNet"][5] - 1
    assert gain == pytest.approx(5.88, abs=0.005)  # Sec. 4.4: "up to 588% on Gaussian Noise"


def test_page_and_json_have_every_row(source: DataSource, model: Segmenter, tmp_path: Path) -> None:
    result = made_up(source)
    path = write_results(tmp_path, result, model, source, "val")
    page = path.read_text()
    rows = cells_of(page)
    for name, figures in TABLE_5.items():
        halves = [row for row in rows if row[0] == name]
        assert [half[1] for half in halves] == [f"{figures[0]:.1f}"] * 2
        assert halves[0][2:] + halves[1][2:] == [f"{figure:.1f}" for figure in figures[1:]]
    ours = [row for row in rows if row[0] == "this model"]
    assert ours[0][2:] + ours[1][2:] == [f"{100 * result.miou(name):.1f}" for name in NAMES]
    assert "reported by the paper, on Cityscapes-C" in page
    assert "measured by this command on toytown" in page
    assert "Frost: ice was drawn" in page
    for name in NAMES:
        (shares,) = (row for row in rows if row[0] == words(name) and len(row) == 7)
        expected = [100 * result.cells[name, s].miou / result.clean.miou for s in SEVERITIES]
        assert shares[1:6] == [f"{share:.1f}" for share in expected]
        assert shares[6] == f"{100 * result.miou(name) / result.clean.miou:.1f}"
    for k, label in enumerate(source.classes):
        groups, *halves = (row for row in rows if row[0] == label)
        shares = [result.retained_iou(name)[k] for name in NAMES]
        assert halves[0][1:] + halves[1][1:] == [f"{100 * share:.1f}" for share in shares]
        assert groups[1:] == [f"{iou:.3f}" for iou in (result.clean.iou[k], *np.reshape(shares, (4, 4)).mean(axis=1))]
    assert page.count("<figure><img") == 2 * 17 + 6
    assert page.count('<figure class="chart">') == 4
    hardest = min(NAMES, key=result.miou)
    assert f"hardest for this model, {words(hardest)}" in page
    assert "<script" not in page
    figures = json.loads((tmp_path / "robustness.json").read_text())
    assert figures == json.loads(json.dumps(result.to_json()))
    assert list(figures["corruptions"]) == list(NAMES)


def test_a_page_of_a_part(source: DataSource, model: Segmenter, tmp_path: Path) -> None:
    result = made_up(source, ("fog", "shot_noise"), (5,))
    page = write_results(tmp_path, result, model, source, "val").read_text()
    rows = cells_of(page)
    (digital, weather) = ([row for row in rows if row[0] == "this model"][k][2:] for k in (0, 1))
    assert digital == ["-"] * 8  # severity 5 of a noise does not count
    assert weather == ["-"] * 6 + [f"{100 * result.miou('fog'):.1f}", "-"]
    assert page.count("<figure><img") == 2 * 3
    print_robustness(result, "a part")


def test_text_is_escaped(source: DataSource, model: Segmenter, tmp_path: Path) -> None:
    odd = Robustness(
        *(getattr(made_up(source, ("fog",), (1,)), n) for n in ("clean", "cells")), {**SETTING, "data": "<b>"}
    )
    page = write_results(tmp_path, odd, model, source, "val").read_text()
    assert "<b>," not in page
    assert markup.escape("<b>") in page


def test_a_row_of_the_table_is_in_percent(source: DataSource) -> None:
    result = made_up(source, ("fog",))
    figures = figures_of(result)
    assert figures[0] == pytest.approx(100 * result.clean.miou)
    assert [figure for figure in figures[1:] if figure is not None] == [pytest.approx(100 * result.miou("fog"))]


def test_halves_repeat_what_stands_before_the_corruptions() -> None:
    first, second = in_halves(["m", "clean"], {"a": ["9.0", "1.0", "2.0", "3.0"]}, ["fog", "snow", "frost"])
    assert cells_of(first) == [["m", "clean", "fog", "snow"], ["a", "9.0", "1.0", "2.0"]]
    assert cells_of(second) == [["m", "clean", "frost"], ["a", "9.0", "3.0"]]


def test_a_picture_stands_above_its_overlay(model: Segmenter) -> None:
    image = np.full((100, 640, 3), 200, np.uint8)
    mask = np.zeros((100, 640), np.int64)
    mask[:, 320:] = 1
    both = above_overlay(image, mask, model)
    assert both.shape == (100, 320, 3)
    assert (both[:50] == 200).all()
    assert (both[75, 10] != both[75, 310]).any()


def test_the_terminal_shows_groups_below_each_other(source: DataSource, capsys: pytest.CaptureFixture[str]) -> None:
    result = made_up(source)
    print_robustness(result, "model on toytown")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for group in GROUPS:
        assert group.capitalize() in text
    for name in NAMES:
        assert name in text
        assert f"{100 * result.cells[name, 4].miou:.1f}" in text
        assert f"{100 * result.miou(name):.1f}" in text
    assert text.count("SegFormer-B5 *") == 4
    assert "* reported by the paper, on Cityscapes-C" in text


def test_reproduce_prints_the_papers_rows(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=io.StringIO(), record=True, width=80)
    console.print(table5())
    text = console.export_text()
    assert "…" not in text
    for name, figures in TABLE_5.items():
        halves = [line for line in text.splitlines() if name in line]
        found = [float(figure) for line in halves for figure in re.findall(r"\d+\.\d", line)]
        assert found == [figures[0], *figures[1:9], figures[0], *figures[9:]]
    reproduce("table5")
    assert "segformer robustness MODEL --data cityscapes=ROOT" in capsys.readouterr().out
