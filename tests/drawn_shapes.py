"""Folders whose masks are described as polygons or run lengths: a house and its door in one image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segformer.data.sources.folder import open_source

SQUARE = [[10, 5], [29, 5], [29, 24], [10, 24]]
SMALL = [[15, 10], [19, 10], [19, 14], [15, 14]]


def write_image(path: Path, size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1]).save(path)


def mask_of(root: Path, split: str = "train") -> tuple[tuple[str, ...], np.ndarray]:
    source = open_source(str(root))
    image, mask = source.samples(split)[0].read()
    assert image.shape[:2] == mask.shape
    return source.classes, source.table.apply(mask, "mask")


def coco(*files: str, **changes: Any) -> str:
    polygon = [float(value) for point in SQUARE for value in point]
    small = [float(value) for point in SMALL for value in point]
    images = [{"id": i, "file_name": name, "height": 40, "width": 50} for i, name in enumerate(files)]
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 7, "segmentation": [small], "area": 16},
        {"id": 2, "image_id": 0, "category_id": 3, "segmentation": [polygon], "area": 400},
    ]
    categories = [{"id": 7, "name": "door"}, {"id": 3, "name": "house"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories} | changes)


def labelme(*shapes: tuple[str, Any], size: tuple[int, int] = (40, 50), kind: str = "polygon") -> str:
    rows = [{"label": label, "points": points, "shape_type": kind} for label, points in shapes]
    return json.dumps({"version": "5.4.1", "shapes": rows, "imageHeight": size[0], "imageWidth": size[1]})
