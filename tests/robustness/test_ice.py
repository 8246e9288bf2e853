import numpy as np
from scipy import ndimage

from corruption_images import flat, rng
from segformer.robustness.corruptions import corrupt
from segformer.robustness.ice import LONG_SIDE, draw_ice, feather


def test_drawn_ice_is_bluish_bright_and_detailed() -> None:
    """Near the photographs' figures: means 117-207, deviations 23-44, detail 10-25 (of 255)."""
    means, deviations, details = [], [], []
    for seed in range(6):
        keep, amount = 1, 0.4
        ice = (corrupt(flat(0, (200, 320)), "frost", 1, rng(seed)).astype(float) - keep * 0) / amount
        red, _, blue = ice.reshape(-1, 3).mean(axis=0)
        assert red < blue
        gray = ice.mean(axis=2)
        means.append(gray.mean())
        deviations.append(gray.std())
        details.append((gray - ndimage.gaussian_filter(gray, 4)).std())
    assert min(means) > 110
    assert max(means) < 215
    assert np.ptp(means) > 15
    assert 20 < min(deviations) < max(deviations) < 50
    assert 8 < min(details) < max(details) < 30


def test_ice_has_the_size_of_the_image_and_is_drawn_small_for_a_large_one() -> None:
    ice = draw_ice((70, 1500), rng())
    assert ice.shape == (70, 1500, 3)
    assert ice.dtype == np.float32
    assert ice.min() >= 0
    assert ice.max() <= 1
    small = draw_ice((30, LONG_SIDE), rng()).mean(axis=2)
    assert np.abs(np.diff(ice.mean(axis=2), axis=1)).mean() < np.abs(np.diff(small, axis=1)).mean()


def test_branches_leave_the_spine_at_60_degrees_and_get_shorter() -> None:
    lines = feather((100.0, 100.0), 0.3, 90.0, rng()) / 16
    ends = lines[:, 1] - lines[:, 0]
    angles = np.degrees(np.arctan2(ends[:, 1], ends[:, 0])) - np.degrees(0.3)
    lengths = np.hypot(*ends.T)
    assert lengths[0] == 90 or abs(lengths[0] - 90) < 0.1
    long = lengths[1:] > 5  # short ones are rounded too much
    np.testing.assert_allclose(np.abs(angles[1:][long]), 60, atol=1)
    assert lengths[1:6].mean() > lengths[25:30].mean()
