import numpy as np
import pytest

from segformer.data.sources.street_canvas import CAR, Street
from segformer.data.sources.street_cars import draw_car


@pytest.mark.parametrize("seed", range(3))
def test_only_its_own_class_is_painted(seed: int) -> None:
    street = Street(np.random.default_rng(seed), (96, 160))
    street.picture.putalpha(99)
    draw_car(street, 0.5, 9.0, 0.0)
    labels = np.asarray(street.picture)[..., 3]
    assert set(np.unique(labels)) == {CAR, 99}
    assert 0.003 < (labels == CAR).mean() < 0.6
