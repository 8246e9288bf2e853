from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sample_kinds import save_pair
from segformer.data.dataset import DataSource, Pair
from segformer.data.images import Decoding
from segformer.data.label_table import LabelTable


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


def test_a_reduced_pair_has_its_full_mask_and_another_size_is_still_found(tmp_path: Path) -> None:
    Image.new("RGB", (801, 603)).save(tmp_path / "a.jpg")
    Image.new("L", (801, 603)).save(tmp_path / "a.png")
    pair = Pair("a", tmp_path / "a.jpg", tmp_path / "a.png")
    image, mask = pair.read(Decoding(enough=(100, 75)))
    assert (image.shape, mask.shape) == ((76, 101, 3), (603, 801))
    Image.new("L", (800, 600)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: expected a mask of its image's size"):
        pair.read(Decoding(enough=(100, 75)))
