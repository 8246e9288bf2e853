import numpy as np
import pytest

from segformer.data.sources.street_canvas import NEAR, SCALE, Street, mix, noise, outline, patch, ring


@pytest.fixture
def street() -> Street:
    return Street(np.random.default_rng(3), (96, 160))


def test_a_point_straight_ahead_is_at_the_vanishing_point(street: Street) -> None:
    street.bend = 0.0
    for depth in (5.0, 50.0):
        assert street.project(street.eye[0], street.eye[1], depth) == pytest.approx(street.vanishing)


def test_twice_as_far_is_half_as_large(street: Street) -> None:
    street.bend = 0.0
    heights = [street.project(0, 0, z)[1] - street.project(0, 2, z)[1] for z in (4.0, 8.0)]
    assert heights[0] == pytest.approx(2 * heights[1])
    assert street.project(0, 0, NEAR) == street.project(0, 0, NEAR / 2)  # nothing comes nearer than the near plane


def test_image_and_mask_come_from_one_stroke(street: Street) -> None:
    before = np.asarray(street.picture).copy()
    street.fill(((-1, 0, 6), (1, 0, 6), (1, 2, 6), (-1, 2, 6)), (250, 10, 10), 5)
    after = np.asarray(street.picture)
    changed = (after != before).any(axis=2)
    assert changed.any()
    assert (after[..., 3][changed] == 5).all()
    assert after.shape == (96 * SCALE, 160 * SCALE, 4)


def test_haze_takes_the_color_of_the_horizon(street: Street) -> None:
    street.move_to(1e6)
    street.fill(((-9, -9, 6), (9, -9, 6), (9, 9, 6), (-9, 9, 6)), (0, 0, 0), 1)
    painted = np.asarray(street.picture)
    assert painted[painted[..., 3] == 1][0, :3] == pytest.approx(street.horizon, abs=1)


def test_shadows_darken_the_ground_only(street: Street) -> None:
    before = street.picture.tobytes()
    street.cast(0.0, 8.0, 0.3, 1.7)
    assert np.asarray(street.shadows).max() > 0
    assert street.picture.tobytes() == before


def test_shapes_worked_by_hand() -> None:
    assert mix((0, 0, 0), (10, 20, 30), 0.5) == (5, 10, 15)
    assert outline((0, 1), (2, 4)) == [(0, 2), (0, 4), (1, 4), (1, 2)]
    assert len(outline((0, 1), (1, 100))) == 32
    np.testing.assert_allclose(ring(1, 2, 3, 4, 4), [(1, 6), (4, 2), (1, -2), (-2, 2)], atol=1e-12)
    quad = [(0, 0, 0), (4, 0, 0), (4, 8, 0), (0, 8, 0)]
    assert patch(quad, 0.25, 0.5, 0, 0.5) == [(1, 0, 0), (2, 0, 0), (2, 4, 0), (1, 4, 0)]


def test_noise_is_smooth_and_repeats() -> None:
    first, second = (noise(np.random.default_rng(0), (4, 4), (40, 60)) for _ in range(2))
    assert first.shape == (40, 60)
    assert np.array_equal(first, second)
    assert np.abs(np.diff(first, axis=0)).max() < 0.5 * np.ptp(first)
