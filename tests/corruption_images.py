"""Images to corrupt, and references that several corruptions share."""

import math

import numpy as np

from segformer.data.images import RGB, Decoding
from segformer.data.sources.toytown import Scene


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(seed: int = 100_003) -> np.ndarray:
    """Part of a drawn street, small so that tests are quick."""
    return Scene(seed).read()[0][40:136, 60:220]


def flat(level: int, size: tuple[int, int] = (128, 128)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def near(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the truncated expectation, but for rounding errors next to whole gray levels."""
    assert np.abs(found - (expected - 0.5)).max() < 0.51


def smeared(values: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Shifted copies one by one, edges repeated."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    rows, columns = np.indices(values.shape[:2])
    total = np.zeros(values.shape)
    for step, weight in enumerate(weights / weights.sum()):
        down = math.ceil(step * math.sin(math.radians(degrees)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(degrees)) - 0.5)
        total += weight * values[(rows + down).clip(0, len(values) - 1), (columns + right).clip(0, values.shape[1] - 1)]
    return total


class Picture:
    """A sample in memory."""

    def __init__(self, name: str, size: tuple[int, int] = (40, 56)) -> None:
        self.name = name
        self.size = size

    def read(self, decoding: Decoding = RGB) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[: self.size[0], : self.size[1]]
        mask = ((y - 20) ** 2 + (x - 30) ** 2 < 150).astype(np.uint8)
        image = np.stack([120 + 100 * mask, 200 - 2 * y, 2 * x + 5 * len(self.name)], axis=-1).astype(np.uint8)
        image.setflags(write=False)
        return image, mask
