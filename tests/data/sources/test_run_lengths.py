import numpy as np
import pytest

from segformer.data.sources.run_lengths import Runs, decompress


def test_compressed_run_lengths_of_many_bits() -> None:
    y, x = np.mgrid[:40, :50]
    disc = ((x - 20) ** 2 + (y - 15) ** 2 < 100) & (x % 7 != 3)
    text = "S>9n02M4N0O2N2W10hN000000000Y1NjNN102L3Nfh0"  # made by pycocotools 2.0.11
    assert decompress(text) == list(Runs.from_pixels(disc, (0, 0)).counts)


@pytest.mark.parametrize("seed", range(4))
def test_runs_hold_every_pixel(seed: int) -> None:
    pixels = np.random.default_rng(seed).random((3, 4)) < 0.5
    assert np.array_equal(Runs.from_pixels(pixels, (0, 0)).pixels(), pixels)
