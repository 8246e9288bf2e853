from pathlib import Path

import numpy as np
import pytest

from conftest import CLASSES, write_folder
from html_reader import Reader
from networks import FakeNetwork
from segformer.data.sources.catalog import open_data
from segformer.evaluation.evaluate import evaluate
from segformer.evaluation.page import reliable_bins, verdict, write_comparison_page, write_evaluation_page
from segformer.inference.predictor import Predictor

NAN = float("nan")


def test_the_pages_of_an_evaluation_and_of_a_comparison(tmp_path: Path) -> None:
    source = open_data(str(write_folder(tmp_path / "data", {"train": 1, "val": 7})))
    predictor = Predictor(FakeNetwork(CLASSES))
    evaluation = evaluate(predictor.model, source, workers=0)
    html = write_evaluation_page(tmp_path, "a <b>", predictor, source, "val", evaluation).read_text()
    Reader(html)
    assert "a &lt;b&gt;" in html
    assert html.count('<img src="data:image/') == 6 * 5
    worst = evaluation.worst(6)
    assert evaluation.image_miou[worst].tolist() == sorted(evaluation.image_miou.tolist())[:6]
    assert html.index(f"{evaluation.names[worst[0]]}:") < html.index(f"{evaluation.names[worst[1]]}:")
    comparison = evaluation.compare(evaluation)
    html = write_comparison_page(tmp_path, ("one", "two"), evaluation, comparison).read_text()
    Reader(html)
    assert html.count("no significant change") == 4  # three classes and their mean


@pytest.mark.parametrize(
    ("change", "p", "expected"),
    [
        (0.1, 0.01, "better"),
        (-0.1, 0.01, "worse"),
        (0.1, 0.05, "no significant change"),
        (0.1, NAN, "unknown"),
        (NAN, 0.01, "unknown"),
    ],
)
def test_what_a_change_is_called(change: float, p: float, expected: str) -> None:
    assert verdict(change, p) == expected


def test_bins_of_few_pixels_are_not_drawn() -> None:
    bins = np.array([[19, 0.1, 0.2], [20, 0.3, 0.4], [0, NAN, NAN], [100, 0.9, 0.8]])
    assert reliable_bins(bins) == [(0.3, 0.4), (0.9, 0.8)]
    assert reliable_bins(bins * [10_000, 1, 1]) == [(0.1, 0.2), (0.3, 0.4), (0.9, 0.8)]
