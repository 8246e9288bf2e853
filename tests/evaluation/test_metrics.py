import json
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from segformer.evaluation.metrics import Scores
from segformer.evaluation.tally import count_pixels

NAN = float("nan")


@pytest.fixture(autouse=True)
def no_numerical_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def scores_of(prediction: list[int], target: list[int], num_classes: int) -> Scores:
    return counted([(torch.tensor([prediction]), torch.tensor([target]))], num_classes)


def counted(images: list[tuple[torch.Tensor, torch.Tensor]], num_classes: int) -> Scores:
    """Scores of predictions and labels, image by image."""
    counts = [count_pixels(prediction, target.to(torch.uint8), num_classes) for prediction, target in images]
    return Scores(sum(counts).numpy(), tuple(f"c{k}" for k in range(num_classes)))


def random_maps(num_classes: int, absent: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and labels (4, 24, 31) in which class ``absent`` does not occur and a fifth is ignored."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, num_classes, (4, 24, 31), generator=generator)
    prediction = torch.where(
        torch.rand(target.shape, generator=generator) < 0.5,
        target,
        torch.randint(0, num_classes, target.shape, generator=generator),
    )
    other = (absent + 1) % num_classes
    target, prediction = (
        target.masked_fill(target == absent, other),
        prediction.masked_fill(prediction == absent, other),
    )
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return prediction, target


def test_a_matrix_worked_by_hand() -> None:
    scores = scores_of([0, 0, 1, 1, 0, 2, 0], [0, 0, 0, 1, 1, 2, 255], 3)
    assert_array_equal(scores.confusion, [[2, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert_allclose(scores.iou, [2 / 4, 1 / 3, 1])
    assert_allclose(scores.accuracy, [2 / 3, 1 / 2, 1])
    assert_allclose(scores.frequency, [3 / 6, 2 / 6, 1 / 6])
    assert scores.miou == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert scores.macc == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores.aacc == pytest.approx(4 / 6)
    assert scores.summary() == {"mIoU": scores.miou, "mAcc": scores.macc, "aAcc": scores.aacc}


def test_counts_are_summed_over_images_before_dividing() -> None:
    first = (torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1]]))
    scores = counted([first, (torch.tensor([[1]]), torch.tensor([[1]]))], 2)
    assert_allclose(scores.iou, [3 / 4, 1 / 2])


@pytest.mark.parametrize("absent", [0, 3, 6])
def test_equal_to_loops_in_numpy(absent: int) -> None:
    prediction, target = random_maps(7, absent)
    scores = counted(list(zip(prediction, target, strict=True)), 7)
    p, t = prediction.numpy().ravel(), target.numpy().ravel()
    p, t = p[t != 255], t[t != 255]
    present = [k for k in range(7) if k != absent]
    iou = {k: ((p == k) & (t == k)).sum() / ((p == k) | (t == k)).sum() for k in present}
    accuracy = {k: (p[t == k] == k).mean() for k in present}
    for k in present:
        assert scores.iou[k] == pytest.approx(iou[k])
        assert scores.accuracy[k] == pytest.approx(accuracy[k])
        assert scores.frequency[k] == pytest.approx((t == k).mean())
    assert np.isnan(scores.iou[absent])
    assert np.isnan(scores.accuracy[absent])
    assert scores.frequency[absent] == 0
    assert scores.miou == pytest.approx(np.mean(list(iou.values())))
    assert scores.macc == pytest.approx(np.mean(list(accuracy.values())))
    assert scores.aacc == pytest.approx((p == t).mean())


def test_equal_to_torchmetrics() -> None:
    prediction, target = random_maps(6, absent=2)
    scores = counted([(prediction, target)], 6)
    jaccard = MulticlassJaccardIndex(6, average=None, ignore_index=255)(prediction, target).numpy()
    accuracy = MulticlassAccuracy(6, average=None, ignore_index=255)(prediction, target).numpy()
    present = [0, 1, 3, 4, 5]
    assert_allclose(scores.iou[present], jaccard[present], rtol=1e-5)
    assert_allclose(scores.accuracy[present], accuracy[present], rtol=1e-5)
    mean = MulticlassJaccardIndex(6, average="macro", ignore_index=255)(prediction, target)
    assert scores.miou == pytest.approx(float(mean), rel=1e-5)


def test_a_class_that_is_only_predicted_counts_with_iou_0() -> None:
    scores = scores_of([0, 0, 1, 2], [0, 0, 1, 1], 4)
    assert_allclose(scores.iou, [1, 1 / 2, 0, NAN])
    assert_allclose(scores.accuracy, [1, 1 / 2, NAN, NAN])
    assert scores.miou == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert scores.macc == pytest.approx((1 + 1 / 2) / 2)


def test_a_prediction_on_an_ignored_pixel_counts_nowhere() -> None:
    scores = scores_of([0, 1, 2], [0, 1, 255], 3)
    assert_allclose(scores.iou, [1, 1, NAN])
    assert scores.miou == 1


def test_everything_ignored_is_nan() -> None:
    scores = scores_of([0, 1, 1], [255, 255, 255], 2)
    assert np.isnan([scores.miou, scores.macc, scores.aacc]).all()
    assert np.isnan(scores.iou).all()
    assert np.isnan(scores.frequency).all()


def test_a_single_class() -> None:
    scores = scores_of([0, 0, 0], [0, 255, 0], 1)
    assert_array_equal(scores.confusion, [[2]])
    assert (scores.miou, scores.macc, scores.aacc) == (1.0, 1.0, 1.0)


def test_the_last_of_255_classes_is_no_ignored_pixel() -> None:
    scores = scores_of([254, 0], [254, 255], 255)
    assert scores.confusion.sum() == 1
    assert scores.iou[254] == 1


def test_json_has_null_for_a_class_that_does_not_occur() -> None:
    scores = scores_of([0, 0, 1, 1], [0, 0, 0, 1], 3)
    values = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert values["mIoU"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert values["classes"]["c0"] == pytest.approx({"iou": 2 / 3, "accuracy": 2 / 3, "share_of_pixels": 3 / 4})
    assert values["classes"]["c2"] == {"iou": None, "accuracy": None, "share_of_pixels": 0.0}
    assert values["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_json_of_nothing_is_valid_too() -> None:
    values = json.loads(json.dumps(scores_of([0], [255], 2).to_json(), allow_nan=False))
    assert values["mIoU"] is None
    assert values["classes"]["c1"]["share_of_pixels"] is None
