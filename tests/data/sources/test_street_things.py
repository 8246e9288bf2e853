from collections.abc import Callable

import numpy as np
import pytest

from segformer.data.sources.street_canvas import PERSON, SIGN, TREE, Street
from segformer.data.sources.street_things import draw_person, draw_sign, draw_tree


@pytest.mark.parametrize(("draw", "label"), [(draw_tree, TREE), (draw_person, PERSON), (draw_sign, SIGN)])
@pytest.mark.parametrize("seed", range(3))
def test_each_paints_only_its_own_class_and_its_shadow(
    draw: Callable[[Street, float, float], None], label: int, seed: int
) -> None:
    street = Street(np.random.default_rng(seed), (96, 160))
    street.picture.putalpha(99)
    draw(street, 0.0, 8.0)
    labels = np.asarray(street.picture)[..., 3]
    assert set(np.unique(labels)) == {label, 99}
    assert 5e-4 < (labels == label).mean() < 0.5
    assert np.asarray(street.shadows).max() > 0


def test_what_is_farther_is_smaller() -> None:
    areas = []
    for depth in (6.0, 24.0):
        street = Street(np.random.default_rng(1), (96, 160))
        street.picture.putalpha(99)
        draw_person(street, 0.0, depth)
        areas.append(int((np.asarray(street.picture)[..., 3] == PERSON).sum()))
    assert areas[0] > 4 * areas[1] > 0
