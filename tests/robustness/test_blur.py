import numpy as np
import pytest
from scipy import ndimage

from corruption_images import flat, near, rng, scene, smeared
from segformer.robustness.blur import disc_kernel, displace
from segformer.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_is_a_separable_convolution(severity: int) -> None:
    image, sigma = scene(), (1, 2, 3, 4, 6)[severity - 1]
    x = np.arange(-4 * sigma, 4 * sigma + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    expected = image.astype(np.float64)
    for axis in (0, 1):
        expected = ndimage.correlate1d(expected, kernel / kernel.sum(), axis=axis, mode="nearest")
    near(corrupt(image, "gaussian_blur", severity, rng()), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_the_mean_of_a_disc_kernel(severity: int) -> None:
    radius, alias = CORRUPTIONS["defocus_blur"].settings[severity - 1]
    kernel = disc_kernel(radius, alias)
    assert kernel.sum() == pytest.approx(1, abs=0.014)  # published: 1.013 where the disc touches its frame
    assert (kernel > 0.5 * kernel.max()).sum() == pytest.approx(np.pi * radius**2, rel=0.1)
    expected = np.stack(
        [ndimage.correlate(scene()[..., c].astype(float), kernel, mode="mirror") for c in range(3)], axis=-1
    )
    near(corrupt(scene(), "defocus_blur", severity, rng()), expected.clip(0, 255))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_blur_smears_a_point_along_a_line(severity: int) -> None:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    image = flat(0, (201, 201))
    image[100, 100] = 255
    down, right = np.nonzero(corrupt(image, "motion_blur", severity, rng())[..., 0])
    assert right.max() == 100  # the weights begin at the pixel itself, and fall off to one side
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    bright = (255 * weights / weights.sum() >= 1).sum() - 1
    length = np.hypot(down - 100, right - 100).max()
    assert length == pytest.approx(bright, abs=1.5)
    expected = int(255 / weights.sum() + 1e-3)
    assert corrupt(image, "motion_blur", severity, rng())[100, 100, 0] == expected


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [(96, 160), (32, 37)])
def test_motion_blur_is_a_weighted_sum_of_shifted_images(severity: int, size: tuple[int, int]) -> None:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    image = scene()[: size[0], : size[1]]
    expected = smeared(image.astype(float), radius, sigma, rng(severity).uniform(-45, 45))
    near(corrupt(image, "motion_blur", severity, rng(severity)), expected)


def test_glass_moves_pixels_as_a_loop_over_them_does() -> None:
    for reach, (height, width) in ((1, (32, 40)), (2, (33, 35)), (4, (40, 32))):
        generator = rng(reach)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        offsets = generator.integers(-reach, reach, (2, height - 2 * reach, width - 2 * reach))
        expected = pixels.copy()
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = offsets[:, row - reach - 1, column - reach - 1]
                expected[row, column] = expected[row + down, column + right]
        np.testing.assert_array_equal(displace(pixels, reach, offsets), expected)
        assert (expected != pixels).mean() > 0.5
