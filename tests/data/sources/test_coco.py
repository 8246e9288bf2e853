import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drawn_shapes import coco, mask_of, write_image
from segformer.data.sources.folder import open_source
from segformer.errors import UserError


def test_an_image_that_coco_names_is_missing(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "coco.json").write_text(coco("a.jpg", "missing.jpg"))
    with pytest.raises(UserError, match=r"missing\.jpg: this image of coco\.json is missing"):
        open_source(str(tmp_path))


def test_coco_names_in_two_spellings_and_a_byte_order_mark(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / unicodedata.normalize("NFC", "Café.jpg"))
    text = coco(unicodedata.normalize("NFD", "Café.jpg"))
    (tmp_path / "coco.json").write_text(text, encoding="utf-8-sig")
    assert len(open_source(str(tmp_path)).samples("train")) == 1


GOOD = {"id": 9, "image_id": 0, "category_id": 7, "segmentation": [[1, 1, 9, 1, 9, 9]], "area": 32}


IMAGE = {"id": 0, "file_name": "a.jpg", "height": 40, "width": 50}


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("part", "row", "message"),
    [
        ("annotations", GOOD | {"image_id": 5}, 'annotation 9: expected "image_id" to be an id in "images", got 5'),
        ("annotations", GOOD | {"category_id": 5}, 'annotation 9: expected "category_id" .* got 5'),
        ("annotations", GOOD | {"image_id": [0]}, 'annotation 9: expected "image_id"'),
        ("annotations", without(GOOD, "image_id"), 'annotation 9: expected "image_id"'),
        ("annotations", without(GOOD, "segmentation"), 'annotation 9: expected "segmentation" .* got None'),
        ("annotations", without(GOOD | {"area": "x"}, "id"), 'annotation without id: expected "area"'),
        ("annotations", GOOD | {"area": None}, 'annotation 9: expected "area" to be a number, got None'),
        ("annotations", GOOD | {"area": float("nan")}, 'annotation 9: expected "area" to be a number, got nan'),
        ("annotations", GOOD | {"segmentation": [[1, 2, 3]]}, "annotation 9: expected polygons of numbers"),
        ("annotations", GOOD | {"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "annotation 9: expected polygons of numbers"),
        ("annotations", GOOD | {"segmentation": [1, 2, 3, 4, 5, 6]}, "annotation 9: expected polygons of numbers"),
        (
            "annotations",
            GOOD | {"segmentation": {"counts": "abc", "size": [40, 50]}},
            "annotation 9: expected polygons",
        ),
        (
            "annotations",
            GOOD | {"segmentation": {"counts": [1, 2], "size": [40, 50]}},
            "annotation 9: expected polygons",
        ),
        ("annotations", GOOD | {"segmentation": {"counts": [2000], "size": [50, 40]}}, "annotation 9: .* 40 x 50"),
        ("annotations", GOOD | {"segmentation": {"counts": [-1, 2001], "size": [40, 50]}}, "annotation 9: expected"),
        ("annotations", GOOD | {"segmentation": []}, 'expected polygons in "segmentation", got none'),
        ("annotations", 3, 'expected COCO\'s "annotations", a list'),
        ("images", without(IMAGE, "height"), 'image 0: expected "height" of type int, got None'),
        ("images", IMAGE | {"width": 0}, r'image 0: expected "height" and "width" above 0, got \(40, 0\)'),
        ("images", IMAGE | {"file_name": None}, 'image 0: expected "file_name"'),
        ("images", without(IMAGE, "id"), 'image without id: expected "id"'),
        ("categories", {"id": 7}, 'category 7: expected "name"'),
        ("categories", {"name": "door"}, 'category without id: expected "id"'),
        ("categories", {"id": 3, "name": "door"}, "category 3: expected a unique id, got it twice"),
    ],
)
def test_coco_faults_are_named(part: str, row: Any, message: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    values = json.loads(coco("a.jpg"))
    values[part] = [row] if part != "categories" else [values[part][1], row]
    (tmp_path / "coco.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"coco\.json(, |: ){message}") as raised:
        open_source(str(tmp_path))
    assert "\n" not in str(raised.value)


SQUARES = np.zeros((4, 5), dtype=bool)


SQUARES[0, 0] = SQUARES[1:3, 1:4] = True


@pytest.mark.parametrize("counts", [[0, 1, 4, 2, 2, 2, 2, 2, 5], "0141N0003"])  # the text is made by pycocotools 2.0.11
def test_run_lengths_of_coco(counts: Any, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.png", (4, 5))
    row = {"id": 1, "image_id": 0, "category_id": 7, "area": 7, "iscrowd": 1}
    row["segmentation"] = {"counts": counts, "size": [4, 5]}
    images = [{"id": 0, "file_name": "a.png", "height": 4, "width": 5}]
    (tmp_path / "train.json").write_text(coco(images=images, annotations=[row]))
    classes, mask = mask_of(tmp_path)
    assert np.array_equal(mask == classes.index("door"), SQUARES)


def test_categories_of_the_same_name_are_one_class(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    categories = [{"id": 0, "name": "house"}, {"id": 3, "name": "house"}, {"id": 7, "name": "house"}]
    (tmp_path / "train.json").write_text(coco("a.jpg", categories=categories))
    classes, mask = mask_of(tmp_path)
    assert classes == ("background", "house")
    assert (mask == 1).sum() == 20 * 20
