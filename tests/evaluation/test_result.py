import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import CLASSES, write_folder
from networks import FakeNetwork
from segformer.data.dataset import DataSource
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.evaluation.evaluate import evaluate
from segformer.evaluation.result import Evaluation
from segformer.evaluation.tally import Tally


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    return open_data(str(write_folder(tmp_path / "data", {"train": 1, "val": 6})))


def counted(images: list[list[list[int]]], groups: str = "abc") -> Evaluation:
    """An evaluation of two classes from intersection, label and prediction of each image."""
    tally = Tally.empty(len(images), 2)
    tally.images[:] = images
    names = [f"image {k}" for k in range(len(images))]
    return Evaluation(tally, ("ground", "disc"), names, list(groups))


def test_the_miou_of_each_image_and_the_worst_worked_by_hand() -> None:
    good, bad, empty = [[9, 9], [10, 9], [9, 10]], [[5, 0], [10, 5], [10, 5]], [[0, 0]] * 3
    evaluation = counted([good, bad, empty])
    np.testing.assert_allclose(evaluation.image_miou, [(9 / 10 + 9 / 10) / 2, (5 / 15 + 0) / 2, np.nan])
    assert evaluation.worst(3) == [1, 0]  # nothing is labeled in the last
    assert evaluation.worst(1) == [1]


def test_few_sequences_are_no_sample(source: DataSource) -> None:
    network = FakeNetwork(CLASSES)
    evaluation = evaluate(network, replace(source, sequence="00"), workers=0)
    assert evaluation.unit == "6 images of only 1 sequences, so the interval is too narrow"
    assert evaluation.drawn == evaluation.names
    assert evaluate(network, source, workers=0).unit == "6 images"


def test_five_sequences_are_drawn_as_a_whole() -> None:
    evaluation = counted([[[5, 5]] * 3] * 6, "aabcde")
    assert evaluation.unit == "5 sequences"
    assert evaluation.drawn == list("aabcde")


def test_json_has_every_figure(source: DataSource) -> None:
    evaluation = evaluate(FakeNetwork(CLASSES), source, workers=0)
    values = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert values["mIoU"] == pytest.approx(evaluation.scores.miou)
    assert values["miou_interval"]["low"] < values["mIoU"] < values["miou_interval"]["high"]
    assert values["boundary_miou"] == pytest.approx(evaluation.boundary_iou.mean())
    assert values["classes"]["disc"]["boundary_iou"] == pytest.approx(evaluation.boundary_iou[1])
    assert set(values["calibration"]) == {"ece", "nll", "temperature", "ece_after", "nll_after"}
    assert set(values["images"]) == set(evaluation.names)


def test_only_the_same_images_can_be_compared(source: DataSource) -> None:
    network = FakeNetwork(CLASSES)
    first = evaluate(network, source, workers=0)
    assert (first.compare(first).difference == 0).all()
    with pytest.raises(UserError, match="on the same images"):
        first.compare(evaluate(network, source, limit=2, workers=0))
