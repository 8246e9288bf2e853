import numpy as np
import pytest

from corruption_images import Picture
from networks import FakeNetwork
from robustness_results import made_up
from segformer.inference.predictor import Predictor
from segformer.robustness.pictures import PredictionDrawer, above_overlay, picture_rows
from segformer.robustness.result import CLEAN
from segformer.robustness.sample import CorruptedSample

CLASSES = ("ground", "disc")


@pytest.fixture
def drawer() -> PredictionDrawer:
    return PredictionDrawer(Predictor(FakeNetwork(CLASSES)), 0, None)


def test_a_picture_stands_above_its_overlay() -> None:
    image = np.full((100, 640, 3), 200, np.uint8)
    mask = np.zeros((100, 640), np.int64)
    mask[:, 320:] = 1
    both = above_overlay(image, mask, FakeNetwork(CLASSES).card)
    assert both.shape == (100, 320, 3)
    assert (both[:50] == 200).all()
    assert (both[75, 10] != both[75, 310]).any()


def test_what_the_model_sees_and_predicts_is_drawn(drawer: PredictionDrawer) -> None:
    sample = Picture("one")
    (_, clean), (label, foggy) = drawer.draw(sample, [CLEAN, ("fog", 2)])
    assert label == "fog 2"
    image = CorruptedSample(sample, "fog", 2).read()[0]
    np.testing.assert_array_equal(
        foggy, above_overlay(image, drawer.predictor(image).mask, drawer.predictor.model.card)
    )
    np.testing.assert_array_equal(clean[:40], sample.read()[0])


def test_rows_show_the_severity_nearest_to_3_and_the_hardest_corruption(drawer: PredictionDrawer) -> None:
    samples = [Picture(name) for name in ("one", "two", "three")]
    result = made_up(CLASSES, ("fog", "snow"), (1, 4))
    hardest = min(("fog", "snow"), key=result.miou)
    rows = picture_rows(result, drawer, samples)  # two images were measured
    assert [caption for caption, _ in rows] == [
        "one, severity 4",
        "two, severity 4",
        f"one with the corruption that is hardest for this model: {hardest}",
    ]
    assert [label for label, _ in rows[0][1]] == ["clean", "snow 4", "fog 4"]
    assert [label for label, _ in rows[2][1]] == ["clean", f"{hardest} 1", f"{hardest} 4"]
    assert len(picture_rows(made_up(CLASSES, ("fog",), (5,)), drawer, samples)) == 2
