from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segformer.data.cache import CachedSample
from segformer.data.dataset import DataSource, Pair, Sample
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import LabelTable
from segformer.data.sources.toytown import Scene

Array = NDArray[Any]


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


def save_pair(folder: Path, image_size: tuple[int, int], mask_size: tuple[int, int]) -> Pair:
    """Files of the (height, width) given."""
    pair = Pair("a", folder / "a.jpg", folder / "a.png")
    Image.new("RGB", image_size[::-1]).save(pair.image)
    Image.new("L", mask_size[::-1], 2).save(pair.mask)
    return pair


def test_a_pair_reads_image_and_mask(tmp_path: Path) -> None:
    image, mask = save_pair(tmp_path, (4, 6), (4, 6)).read()
    assert image.shape == (4, 6, 3)
    np.testing.assert_array_equal(mask, np.full((4, 6), 2))


@pytest.mark.parametrize("mask_size", [(6, 4), (4, 5), (2, 3)])
def test_a_mask_of_another_size_names_both_files_and_sizes(mask_size: tuple[int, int], tmp_path: Path) -> None:
    pair = save_pair(tmp_path, (4, 6), mask_size)
    with pytest.raises(ValueError, match="4 x 6") as error:
        pair.read()
    for part in (str(pair.image), str(pair.mask), f"got {mask_size[0]} x {mask_size[1]}"):
        assert part in str(error.value)


def test_an_unknown_split_names_the_known() -> None:
    source = DataSource("town", ("a",), ((1, 2, 3),), LabelTable.identity(1), {"train": [], "val": []})
    with pytest.raises(ValueError, match="town has no split 'test'; it has train, val"):
        source.samples("test")


@dataclass(frozen=True)
class Raw:
    """Channels and a mask that are read-only and stay in memory."""

    channels: int
    name: str = "raw"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        zeros = np.frombuffer(ZEROS, np.uint8)
        return zeros[: 2400 * self.channels].reshape(40, 60, self.channels), zeros[:2400].reshape(40, 60)


ZEROS = bytes(2400 * 5)


def samples(folder: Path) -> dict[str, Sample]:
    pair = Pair("a", folder / "a.png", folder / "a_mask.png")
    image, mask = Noise(0).read()
    Image.fromarray(image).save(pair.image)
    Image.fromarray(mask).save(pair.mask)
    kept = CachedSample(pair, folder / "cache")
    kept.read()
    return {"file": pair, "cached": kept, "drawn": Scene(3), "gray": Raw(1), "rgb": Raw(3), "raw": Raw(5)}


def test_a_reduced_pair_has_its_full_mask_and_another_size_is_still_found(tmp_path: Path) -> None:
    Image.new("RGB", (801, 603)).save(tmp_path / "a.jpg")
    Image.new("L", (801, 603)).save(tmp_path / "a.png")
    pair = Pair("a", tmp_path / "a.jpg", tmp_path / "a.png")
    image, mask = pair.read(Decoding(enough=(100, 75)))
    assert (image.shape, mask.shape) == ((76, 101, 3), (603, 801))
    Image.new("L", (800, 600)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: expected a mask of its image's size"):
        pair.read(Decoding(enough=(100, 75)))
