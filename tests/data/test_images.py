from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segformer.data.images import Decoding, displayed, image_array

Array = NDArray[Any]


def noise(height: int = 5, width: int = 7, channels: int = 3) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def over_white(color: float, alpha: int) -> float:
    return (color * alpha + 255 * (255 - alpha)) / 255


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (1, 1), (5, 3)])
def test_a_gray_array_is_repeated(shape: tuple[int, ...]) -> None:
    gray = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    expected = np.stack([gray.reshape(shape[:2])] * 3, axis=2)
    np.testing.assert_array_equal(image_array(gray), expected)
    np.testing.assert_array_equal(image_array(gray.astype(np.uint16) * 257), expected)


def test_an_rgb_array_is_kept_however_it_lies_in_memory() -> None:
    np.testing.assert_array_equal(image_array(noise()), noise())
    np.testing.assert_array_equal(image_array(np.asfortranarray(noise())), noise())
    np.testing.assert_array_equal(image_array(noise()[:, ::-1]), noise()[:, ::-1])
    np.testing.assert_array_equal(image_array(noise().astype(np.uint16) * 257), noise())


def test_an_rgba_array_is_laid_over_white() -> None:
    pixels = noise(channels=4)
    expected = over_white(pixels[:, :, :3], pixels[:, :, 3:].astype(float))
    assert np.abs(image_array(pixels) - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.int8, np.uint32, bool])
def test_an_array_of_another_type_is_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match=f"must be uint8 or uint16, got {np.dtype(dtype)}"):
        image_array(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize(
    "shape", [(), (4,), (4, 4, 2), (4, 4, 5), (3, 8, 8), (1, 4, 4, 3), (0, 4, 3), (4, 0), (4, 4, 0)]
)
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(height, width\)") as error:
        image_array(np.zeros(shape, np.uint8))
    assert f"got {shape}" in str(error.value)


FIVE = np.random.default_rng(0).integers(0, 60_000, (40, 50, 5), dtype=np.uint16)


def test_arrays_of_channels() -> None:
    assert image_array(FIVE, Decoding("raw", 5)).dtype == np.float32
    assert image_array(FIVE[:, :, 0], Decoding("raw", 1)).shape == (40, 50, 1)
    with pytest.raises(ValueError, match=r"expected an image of model\.in_channels = 3 channels, got 5"):
        image_array(FIVE, Decoding("raw", 3))


def test_what_is_displayed_is_stretched() -> None:
    shown = displayed(FIVE.astype(np.float32))
    assert shown.shape == (40, 50, 3)
    assert (shown.min(), shown.max()) == (0, 255)
    assert displayed(np.full((4, 5, 1), 7, dtype=np.float32)).shape == (4, 5, 3)
