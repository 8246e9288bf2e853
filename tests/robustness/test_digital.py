import colorsys
import io

import numpy as np
import pytest
from PIL import Image

from corruption_images import near, rng, scene
from segformer.robustness.corruptions import SEVERITIES, corrupt


def in_hsv(image: np.ndarray, change: object) -> np.ndarray:
    """Change (hue, saturation, value) pixel by pixel with the standard library."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.reshape(-1, 3) / 255]
    return (np.array(pixels) * 255).reshape(image.shape)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_is_added_in_hsv(severity: int) -> None:
    image, amount = scene()[:24, :40], 0.1 * severity
    image = np.concatenate([image, np.zeros_like(image[:8]), np.full_like(image[:8], 90)])
    expected = in_hsv(image, lambda hue, saturation, value: (hue, saturation, min(value + amount, 1)))
    near(corrupt(image, "brightness", severity, rng()), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_saturation_is_changed_in_hsv_where_gray_is_red(severity: int) -> None:
    factor, offset = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    image = np.concatenate([scene()[:24, :40], np.full((8, 40, 3), 90, np.uint8)])
    expected = in_hsv(image, lambda h, s, v: (h, min(max(s * factor + offset, 0), 1), v))
    near(corrupt(image, "saturate", severity, rng()), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_around_the_mean_of_each_channel(severity: int) -> None:
    image, factor = scene(), (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.reshape(-1, 3).mean(axis=0)
    near(corrupt(image, "contrast", severity, rng()), mean + factor * (image - mean))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_has_the_published_quality(severity: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    np.testing.assert_array_equal(corrupt(scene(), "jpeg_compression", severity, rng()), Image.open(buffer))
