from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segformer.data.masks import read_mask

Array = NDArray[Any]


def noise(height: int = 5, width: int = 7, channels: int = 3) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_a_mask_keeps_palette_indices(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [7, 255, 3]], np.uint8)
    mask = Image.fromarray(ids).convert("P")
    mask.putpalette(noise(256, 1).tobytes())
    mask.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


def test_a_mask_keeps_palette_indices_that_are_marked_transparent(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2]], np.uint8)
    mask = Image.fromarray(ids).convert("P")
    mask.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8])
    mask.save(tmp_path / "mask.png", transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), ids)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_keeps_gray_values(suffix: str, dtype: type, tmp_path: Path) -> None:
    ids = np.array([[0, 1, 254], [255, 256, 65_535]]).clip(0, np.iinfo(dtype).max).astype(dtype)
    Image.fromarray(ids).save(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask{suffix}"), ids)


def test_a_mask_of_one_bit_holds_the_ids_0_and_1(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[1, 0], [0, 1]]  # 255 would be ignored


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_a_mask_of_colors_is_refused(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    Image.new(mode, (4, 4)).save(path)
    with pytest.raises(ValueError, match=rf"mask\.tif: expected an index mask .* got an image of mode {mode}"):
        read_mask(path)
