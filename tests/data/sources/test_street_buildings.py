import numpy as np
import pytest

from segformer.data.sources.street_buildings import draw_building
from segformer.data.sources.street_canvas import BUILDING, Street


@pytest.mark.parametrize("seed", range(3))
def test_only_its_own_class_is_painted(seed: int) -> None:
    street = Street(np.random.default_rng(seed), (96, 160))
    street.picture.putalpha(99)
    draw_building(street, -1, 8.0, 10.0)
    labels = np.asarray(street.picture)[..., 3]
    assert set(np.unique(labels)) == {BUILDING, 99}
    assert 0.003 < (labels == BUILDING).mean() < 0.6
