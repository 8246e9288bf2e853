"""Samples of every kind: in files, cached, drawn and in memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segformer.arrays import Array
from segformer.data.cache import CachedSample
from segformer.data.dataset import Pair, Sample
from segformer.data.images import RGB, Decoding
from segformer.data.sources.toytown import Scene

ZEROS = bytes(2400 * 5)


@dataclass(frozen=True)
class Noise:
    """A drawn image with a mask of the classes 0-3."""

    seed: int

    @property
    def name(self) -> str:
        return f"noise_{self.seed}"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        rng = np.random.default_rng(self.seed)
        image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        return image, rng.integers(0, 4, (4, 6), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)


@dataclass(frozen=True)
class Raw:
    """Channels and a mask that are read-only and stay in memory."""

    channels: int
    name: str = "raw"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        zeros = np.frombuffer(ZEROS, np.uint8)
        return zeros[: 2400 * self.channels].reshape(40, 60, self.channels), zeros[:2400].reshape(40, 60)


def save_pair(folder: Path, image_size: tuple[int, int], mask_size: tuple[int, int]) -> Pair:
    """Files of the (height, width) given."""
    pair = Pair("a", folder / "a.jpg", folder / "a.png")
    Image.new("RGB", image_size[::-1]).save(pair.image)
    Image.new("L", mask_size[::-1], 2).save(pair.mask)
    return pair


def samples(folder: Path) -> dict[str, Sample]:
    pair = Pair("a", folder / "a.png", folder / "a_mask.png")
    image, mask = Noise(0).read()
    Image.fromarray(image).save(pair.image)
    Image.fromarray(mask).save(pair.mask)
    kept = CachedSample(pair, folder / "cache")
    kept.read()
    return {"file": pair, "cached": kept, "drawn": Scene(3), "gray": Raw(1), "rgb": Raw(3), "raw": Raw(5)}
