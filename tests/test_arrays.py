import warnings

import numpy as np
import pytest
import torch

from segformer.arrays import to_pixels, to_tensor, to_tensor_view


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("convert", [to_tensor, to_tensor_view])
def test_channels_come_first_and_go_back(convert, channels: int) -> None:  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, channels), dtype=np.uint8)
    image = convert(pixels)
    assert image.shape == (channels, 4, 6)
    assert image[channels - 1, 2, 5] == pixels[2, 5, channels - 1]
    np.testing.assert_array_equal(to_pixels(image), pixels)


def test_a_tensor_is_a_copy_in_the_order_of_the_pixels_memory() -> None:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    image = to_tensor(pixels)
    assert image.stride() == (1, 18, 3)  # a pixel's channels still lie together
    image[:] = 1
    assert not pixels.any()
    assert to_tensor(pixels[::-1, ::-1]).shape == (3, 4, 6)


def test_a_view_shares_the_memory_and_gives_no_warning() -> None:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    image = to_tensor_view(pixels)
    pixels[1, 2, 0] = 7
    assert image[0, 1, 2] == 7
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(to_tensor_view(pixels), image)
