from pathlib import Path

import pytest

from drawn_shapes import SQUARE, labelme, mask_of, write_image


def test_an_image_of_another_size_than_annotated(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg", (20, 20))
    (tmp_path / "images" / "train" / "a.json").write_text(labelme(("house", SQUARE)))
    with pytest.raises(ValueError, match=r"a\.json: expected a mask of its image's size 20 x 20"):
        mask_of(tmp_path)
