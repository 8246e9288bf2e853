import numpy as np

from segformer.data.sources.street_canvas import BUILDING, PAVEMENT, ROAD, SKY, TREE, Street
from segformer.data.sources.street_surroundings import draw_backdrop, draw_ground, draw_sky


def test_sky_covers_everything_and_ground_all_below_the_horizon() -> None:
    street = Street(np.random.default_rng(2), (96, 160))
    street.picture.putalpha(99)
    draw_sky(street)
    assert set(np.unique(np.asarray(street.picture)[..., 3])) == {SKY}
    draw_backdrop(street)
    assert set(np.unique(np.asarray(street.picture)[..., 3])) <= {SKY, BUILDING, TREE}
    draw_ground(street)
    labels = np.asarray(street.picture)[..., 3]
    horizon = int(street.vanishing[1])
    assert set(np.unique(labels[-20:])) <= {ROAD, PAVEMENT}
    assert not {ROAD, PAVEMENT} & set(np.unique(labels[: horizon - 4]))
