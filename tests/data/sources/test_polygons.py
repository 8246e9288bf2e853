import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segformer.data.sources.folder import open_source

SQUARE = [[10, 5], [29, 5], [29, 24], [10, 24]]


def write_image(path: Path, size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1]).save(path)


def labelme(*shapes: tuple[str, Any], size: tuple[int, int] = (40, 50), kind: str = "polygon") -> str:
    rows = [{"label": label, "points": points, "shape_type": kind} for label, points in shapes]
    return json.dumps({"version": "5.4.1", "shapes": rows, "imageHeight": size[0], "imageWidth": size[1]})


def mask_of(root: Path, split: str = "train") -> tuple[tuple[str, ...], np.ndarray]:
    source = open_source(str(root))
    image, mask = source.samples(split)[0].read()
    assert image.shape[:2] == mask.shape
    return source.classes, source.table.apply(mask, "mask")


def test_an_image_of_another_size_than_annotated(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg", (20, 20))
    (tmp_path / "images" / "train" / "a.json").write_text(labelme(("house", SQUARE)))
    with pytest.raises(ValueError, match=r"a\.json: expected a mask of its image's size 20 x 20"):
        mask_of(tmp_path)
