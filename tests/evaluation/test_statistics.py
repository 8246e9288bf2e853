import numpy as np
import pytest

from segformer.evaluation.statistics import compare, holm, interval, iou_of, mean_of


def counts_of(accuracies: np.ndarray, seed: int, pixels: int = 1000) -> np.ndarray:
    """Two classes; on each image so large a share of each class's pixels is found.  -> (N, 3, 2)"""
    rng = np.random.default_rng(seed)
    right = rng.binomial(pixels, accuracies[:, None], (len(accuracies), 2))
    label = np.full_like(right, pixels)
    return np.stack([right, label, right + (pixels - right)[:, ::-1]], axis=1)


def test_iou_by_hand() -> None:
    counts = np.array([[3, 0, 0], [4, 2, 0], [5, 0, 0]])
    np.testing.assert_allclose(iou_of(counts), [3 / 6, 0, np.nan])
    assert mean_of(iou_of(counts)) == pytest.approx(0.25)
    assert np.isnan(mean_of(np.array([np.nan, np.nan])))


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = float(mean_of(iou_of(counts_of(rng.beta(8, 3, 200_000), 1).sum(axis=0))))
    hits = 0
    for trial in range(60):
        counts = counts_of(rng.beta(8, 3, 40), trial)
        low, high = interval(counts, [str(k) for k in range(40)])
        hits += low <= truth <= high
    assert 50 <= hits <= 60


def test_frames_of_a_sequence_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    counts = counts_of(rng.beta(8, 3, 12).repeat(10), 0)  # ten frames as good as one another
    narrow = np.subtract(*interval(counts, [str(k) for k in range(120)])[::-1])
    wide = np.subtract(*interval(counts, [str(k // 10) for k in range(120)])[::-1])
    assert wide > 2 * narrow


def test_one_image_has_no_interval() -> None:
    assert np.isnan(interval(counts_of(np.array([0.5]), 0), ["a"])).all()


def test_equal_models_differ_by_nothing() -> None:
    counts = counts_of(np.linspace(0.5, 0.9, 20), 0)
    found = compare(counts, counts, [str(k) for k in range(20)])
    assert (found.difference == 0).all()
    assert (found.p == 1).all()


def test_a_difference_on_every_image_is_sure_and_noise_is_not() -> None:
    names = [str(k) for k in range(30)]
    base = np.random.default_rng(0).beta(8, 3, 30)
    first = counts_of(base, 1)
    found = compare(first, counts_of(np.minimum(base + 0.05, 1), 2), names)
    assert (found.p < 0.01).all()
    assert (found.low > 0).all()
    assert (found.low <= found.difference).all()
    assert (found.difference <= found.high).all()
    chances = [compare(first, counts_of(base, seed), names).p[-1] for seed in range(3, 43)]
    assert sum(p < 0.05 for p in chances) <= 8
    assert min(chances) < 0.5 < max(chances)


def test_a_class_that_never_occurs_has_no_difference() -> None:
    counts = np.pad(counts_of(np.linspace(0.5, 0.9, 10), 0), ((0, 0), (0, 0), (0, 1)))
    found = compare(counts, counts, [str(k) for k in range(10)])
    assert np.isnan(found.p[2])
    assert np.isnan(found.low[2])
    assert found.p[3] == 1


def test_few_groups_have_no_p() -> None:
    counts = counts_of(np.array([0.5, 0.6]), 0)
    assert np.isnan(compare(counts, counts, ["a", "a"]).p).all()


def test_holm_keeps_the_order_and_leaves_out_what_was_not_tested() -> None:
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.01, 0.9])), [0.04, np.nan, 0.03, 0.9])
