import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from segformer.data.sources.street_scene import draw_scene
from segformer.data.sources.toytown import CLASSES


@cache
def scenes(first: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) images and (N, H, W) masks."""
    images, masks = zip(*(draw_scene(seed) for seed in range(first, first + number)), strict=True)
    return np.stack(images), np.stack(masks)


def test_same_seed_draws_the_same_scene() -> None:
    for first, second in zip(draw_scene(7), draw_scene(7), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_process_draws_the_same_scene() -> None:
    code = (
        "import sys; from segformer.data.sources.street_scene import draw_scene; image, _ = draw_scene(3, (64, 80)); "
    )
    code += "sys.stdout.buffer.write(image)"
    drawn = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert drawn == draw_scene(3, (64, 80))[0].tobytes()


def test_drawing_leaves_the_global_generator_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    draw_scene(1, (64, 64))
    assert np.random.rand() == expected  # noqa: NPY002


def test_neighboring_seeds_are_unrelated() -> None:
    (image, mask), (other_image, other_mask) = draw_scene(11), draw_scene(12)
    assert (image != other_image).mean() > 0.9
    assert (mask != other_mask).mean() > 0.1


@pytest.mark.parametrize("size", [(64, 64), (97, 133), (256, 256), (192, 320), (320, 128), (64, 400)])
def test_any_size(size: tuple[int, int]) -> None:
    for seed in range(3):
        image, mask = draw_scene(seed, size)
        assert image.shape == (*size, 3)
        assert mask.shape == size
        assert image.dtype == mask.dtype == np.uint8
        assert mask.max() < len(CLASSES)
        assert len(np.unique(mask)) >= 6


def test_too_small_a_size_says_the_least() -> None:
    with pytest.raises(ValueError, match=r"at least \(64, 64\), got \(32, 64\)"):
        draw_scene(0, (32, 64))


def test_arrays_can_be_written_to() -> None:
    image, mask = draw_scene(0, (64, 64))
    image[0, 0], mask[0, 0] = 0, 0


def test_no_sky_below_and_no_road_above() -> None:
    _, masks = scenes(0, 80)
    top, bottom = masks[:, :48], masks[:, -48:]
    assert not np.isin(bottom, CLASSES.index("sky")).any()
    assert not np.isin(top, CLASSES.index("road")).any()
