import math

import numpy as np
import pytest

from corruption_images import flat, rng
from segformer.robustness.corruptions import SEVERITIES, corrupt


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_and_speckle_noise_have_the_published_deviation(severity: int) -> None:
    for name, expected in (
        ("gaussian_noise", (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]),
        ("speckle_noise", 128 / 255 * (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]),
    ):
        found = corrupt(flat(128), name, severity, rng()).astype(float)
        low, high = np.percentile(found, (25, 75))  # quartiles: the tails are cut off at black and white
        assert (high - low) / 255 / 1.349 == pytest.approx(expected, rel=0.03)
        assert not np.array_equal(found[..., 0], found[..., 1])
    assert (corrupt(flat(0), "speckle_noise", severity, rng()) == 0).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulses_hit_the_published_share_of_values(severity: int) -> None:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    found = corrupt(flat(100), "impulse_noise", severity, rng())
    assert (found != 100).mean() == pytest.approx(share, rel=0.08)
    assert (found == 255).mean() == pytest.approx(share / 2, rel=0.1)
    assert (found == 0).mean() == pytest.approx(share / 2, rel=0.1)
    assert (found[..., 0] != found[..., 1]).mean() > share  # channels are hit one by one


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_counts_photons(severity: int) -> None:
    photons, level = (60, 25, 12, 5, 3)[severity - 1], 51
    found = corrupt(flat(level, (256, 256)), "shot_noise", severity, rng()).astype(float) / 255 * photons
    counts = np.round(found + 0.3 * photons / 255).astype(int)  # truncated gray levels lie below whole photons
    mean = level / 255 * photons
    for count in range(min(photons, 20)):
        expected = math.exp(-mean) * mean**count / math.factorial(count)
        assert (counts == count).mean() == pytest.approx(expected, abs=0.005)
