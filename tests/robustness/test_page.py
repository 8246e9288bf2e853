import html as markup
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import FakeNetwork
from robustness_results import SETTING, made_up
from segformer.config import Preprocessing
from segformer.data.dataset import DataSource
from segformer.data.sources.toytown import open_source
from segformer.models.build import build_model
from segformer.models.segmenter import Segmenter
from segformer.published import TABLE_5
from segformer.robustness.corruptions import SEVERITIES, corruption_names, display_name
from segformer.robustness.page import in_halves, write_results
from segformer.robustness.result import Robustness


@pytest.fixture(scope="module")
def source() -> DataSource:
    return open_source("")


@pytest.fixture(scope="module")
def model(source: DataSource) -> Segmenter:
    torch.manual_seed(0)
    small = Preprocessing(long_side=64, short_side=32)
    return build_model("mit_b0", num_classes=len(source.classes), decoder_channels=16, preprocessing=small).eval()


def cells_of(page: str) -> list[list[str]]:
    """Texts of the cells of all rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]


def test_page_and_json_have_every_row(source: DataSource, model: Segmenter, tmp_path: Path) -> None:
    result = made_up(source.classes)
    path = write_results(tmp_path, result, model, source, "val")
    page = path.read_text()
    rows = cells_of(page)
    for method, figures in TABLE_5.items():
        halves = [row for row in rows if row[0] == method]
        assert [half[1] for half in halves] == [f"{figures['clean']:.1f}"] * 2
        assert halves[0][2:] + halves[1][2:] == [f"{figures[name]:.1f}" for name in corruption_names()]
    ours = [row for row in rows if row[0] == "this model"]
    assert ours[0][2:] + ours[1][2:] == [f"{100 * result.miou(name):.1f}" for name in corruption_names()]
    assert "reported by the paper, on Cityscapes-C" in page
    assert "measured by this command on toytown" in page
    assert "Frost uses drawn ice" in page
    for name in corruption_names():
        (shares,) = (row for row in rows if row[0] == display_name(name) and len(row) == 7)
        expected = [100 * result.cells[name, s].miou / result.clean.miou for s in SEVERITIES]
        assert shares[1:6] == [f"{share:.1f}" for share in expected]
        assert shares[6] == f"{100 * result.miou(name) / result.clean.miou:.1f}"
    for k, label in enumerate(source.classes):
        groups, *halves = (row for row in rows if row[0] == label)
        shares = [result.retained_iou(name)[k] for name in corruption_names()]
        assert halves[0][1:] + halves[1][1:] == [f"{100 * share:.1f}" for share in shares]
        assert groups[1:] == [f"{iou:.3f}" for iou in (result.clean.iou[k], *np.reshape(shares, (4, 4)).mean(axis=1))]
    assert page.count("<figure><img") == 2 * 17 + 6
    assert page.count('<figure class="chart">') == 4
    hardest = min(corruption_names(), key=result.miou)
    assert f"hardest for this model: {display_name(hardest)}" in page
    assert "<script" not in page
    figures = json.loads((tmp_path / "robustness.json").read_text())
    assert figures == json.loads(json.dumps(result.to_json()))
    assert list(figures["corruptions"]) == list(corruption_names())


def test_a_page_of_a_part(source: DataSource, model: Segmenter, tmp_path: Path) -> None:
    result = made_up(source.classes, ("fog", "shot_noise"), (5,))
    page = write_results(tmp_path, result, model, source, "val").read_text()
    rows = cells_of(page)
    (digital, weather) = ([row for row in rows if row[0] == "this model"][k][2:] for k in (0, 1))
    assert digital == ["-"] * 8  # severity 5 of a noise does not count
    assert weather == ["-"] * 6 + [f"{100 * result.miou('fog'):.1f}", "-"]
    assert page.count("<figure><img") == 2 * 3


def test_text_is_escaped(source: DataSource, model: Segmenter, tmp_path: Path) -> None:
    odd = Robustness(
        *(getattr(made_up(source.classes, ("fog",), (1,)), n) for n in ("clean", "cells")), {**SETTING, "data": "<b>"}
    )
    page = write_results(tmp_path, odd, model, source, "val").read_text()
    assert "<b>," not in page
    assert markup.escape("<b>") in page


def test_halves_repeat_what_stands_before_the_corruptions() -> None:
    first, second = in_halves(["m", "clean"], {"a": ["9.0", "1.0", "2.0", "3.0"]}, ["fog", "snow", "frost"])
    assert cells_of(first) == [["m", "clean", "fog", "snow"], ["a", "9.0", "1.0", "2.0"]]
    assert cells_of(second) == [["m", "clean", "frost"], ["a", "9.0", "3.0"]]


def test_predictions_are_drawn_of_a_fused_model_and_of_any_network(
    source: DataSource, model: Segmenter, tmp_path: Path
) -> None:
    result = made_up(source.classes, ("fog",), (5,))
    for name, network in (("model", model), ("fused", model.fuse()), ("fake", FakeNetwork(source.classes))):
        write_results(tmp_path / name, result, network, source, "val")
    pages = {path.name: (path / "report.html").read_text() for path in tmp_path.iterdir()}
    assert pages["model"] == pages["fused"]
    assert pages["fake"].count("<figure><img") == 2 * 2
