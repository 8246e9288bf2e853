import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segformer.data.folder import open_source

SQUARE = [[10, 5], [29, 5], [29, 24], [10, 24]]
SMALL = [[15, 10], [19, 10], [19, 14], [15, 14]]


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


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_labelme_beside_the_images_or_in_masks(folder: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    path = tmp_path / folder / "train" / "a.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(labelme(("house", SQUARE), ("door", SMALL)))
    classes, mask = mask_of(tmp_path)
    assert classes == ("background", "door", "house")
    assert (mask[0, 0], mask[6, 12], mask[12, 17]) == (0, 2, 1)  # the later polygon lies on top
    assert (mask == 2).sum() + (mask == 1).sum() == 20 * 20
    assert (mask == 1).sum() == 5 * 5


def test_rectangles_and_circles(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    path = tmp_path / "images" / "train" / "a.json"
    path.write_text(labelme(("house", [[10, 5], [29, 24]]), kind="rectangle"))
    assert (mask_of(tmp_path)[1] == 1).sum() == 20 * 20
    path.write_text(labelme(("house", [[20, 20], [20, 30]]), kind="circle"))
    assert (mask_of(tmp_path)[1] == 1).sum() == pytest.approx(np.pi * 10.5**2, rel=0.05)
    path.write_text(labelme(("house", [[20, 20], [20, 30]]), kind="line"))
    assert mask_of(tmp_path)[0] == ("background",)


def test_cityscapes_polygons(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    values = {"imgHeight": 40, "imgWidth": 50, "objects": [{"label": "car", "polygon": SQUARE}]}
    (tmp_path / "images" / "train" / "a.json").write_text(json.dumps(values))
    classes, mask = mask_of(tmp_path)
    assert classes == ("background", "car")
    assert (mask == 1).sum() == 20 * 20


def test_dataset_json_gives_the_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    path = tmp_path / "images" / "train" / "a.json"
    path.write_text(labelme(("house", SQUARE)))
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["void", "tree", "house"]}))
    assert mask_of(tmp_path)[1][10, 20] == 2
    path.write_text(labelme(("hut", SQUARE)))
    with pytest.raises(ValueError, match=r"a\.json: the label 'hut' is no class of dataset\.json"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"shapes": 3}', '{"shapes": [{"label": "a"}]}', '{"shapes": [3]}'])
def test_bad_json_is_named(text: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "images" / "train" / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json"):
        open_source(str(tmp_path))


def test_an_image_of_another_size_than_annotated(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg", (20, 20))
    (tmp_path / "images" / "train" / "a.json").write_text(labelme(("house", SQUARE)))
    with pytest.raises(ValueError, match=r"a\.json: expected a mask of its image's size 20 x 20"):
        mask_of(tmp_path)


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


def test_coco_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "a.jpg")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(coco("a.jpg"))
    classes, mask = mask_of(tmp_path, "val")
    assert classes == ("background", "house", "door")
    assert (mask[0, 0], mask[6, 12], mask[12, 17]) == (0, 1, 2)  # the smaller one lies on top


def test_one_coco_file_is_split_by_a_hash(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(10)]
    for name in names:
        write_image(tmp_path / "images" / name)
    (tmp_path / "coco.json").write_text(coco(*names))
    source = open_source(str(tmp_path))
    assert len(source.samples("train")) + len(source.samples("val")) == 10
    assert source.samples("val")


def test_coco_faults_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    path = tmp_path / "coco.json"
    path.write_text(coco("a.jpg", "missing.jpg"))
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg: named in coco\.json"):
        open_source(str(tmp_path))
    run_length = {"id": 9, "image_id": 0, "category_id": 7, "segmentation": {"counts": "abc", "size": [40, 50]}}
    path.write_text(coco("a.jpg", annotations=[run_length]))
    with pytest.raises(ValueError, match=r"coco\.json, annotation 9: expected polygons"):
        open_source(str(tmp_path))
