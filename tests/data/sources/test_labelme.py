import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drawn_shapes import SMALL, SQUARE, labelme, mask_of, write_image
from segformer.data.sources.folder import open_source
from segformer.errors import UserError


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


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_lines_and_points_cover_nothing(kind: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "images" / "train" / "a.json").write_text(labelme(("wire", SQUARE), kind=kind))
    classes, mask = mask_of(tmp_path)
    assert classes == ("background",)
    assert not mask.any()


def bitmap(pixels: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


@pytest.mark.parametrize("corner", [(10, 5), (0, 0), (44, 33), (-3, -2)])
@pytest.mark.parametrize("inside", [1, 255, True])
def test_bitmaps_of_labelme(corner: tuple[int, int], inside: int, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.png")
    left, top = corner
    pixels = np.random.default_rng(0).random((7, 6)) < 0.5
    shape = {"label": "cat", "shape_type": "mask", "points": [[left, top], [left + 5, top + 6]]}
    shape["mask"] = bitmap(pixels if inside is True else pixels.astype(np.uint8) * inside)
    square = {"label": "house", "shape_type": "polygon", "points": SQUARE}
    values = {"shapes": [square, shape], "imageHeight": 40, "imageWidth": 50}
    (tmp_path / "images" / "train" / "a.json").write_text(json.dumps(values))
    classes, mask = mask_of(tmp_path)
    assert classes == ("background", "cat", "house")
    expected = np.zeros((60, 70), dtype=np.uint8)
    expected[15:35, 20:40] = 2
    expected[top + 10 : top + 17, left + 10 : left + 16][pixels] = 1
    assert np.array_equal(mask, expected[10:50, 10:60])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape_type": "cuboid"}, "expected a shape_type of polygon, .* got 'cuboid'"),
        ({"shape_type": "circle"}, "expected the center of a circle and a point on it, got 4 points"),
        ({"points": [[0, float("nan")], [1, 1], [2, 0]]}, "expected points of finite numbers"),
        ({"points": [[0, "x"]]}, r"expected a label and points \(x, y\), got {"),
        ({"shape_type": "mask"}, "expected two corners and a mask"),
        ({"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": None}, "expected two corners and a mask"),
        ({"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "x"}, "expected two corners and a mask"),
        ({"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "eHh4"}, "expected an image"),
        (
            {"shape_type": "mask", "points": [[0, 0], [8, 9]], "mask": bitmap(np.ones((4, 9), np.uint8))},
            "expected a mask of 10 x 9 .* got 4 x 9",
        ),
    ],
)
def test_a_shape_at_fault_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    shapes = [{"label": "house", "points": SQUARE}, {"label": "hut", "points": SQUARE} | changes]
    (tmp_path / "images" / "train" / "a.json").write_text(json.dumps({"shapes": shapes}))
    with pytest.raises(ValueError, match=rf"a\.json, shape 1: {message}") as raised:
        open_source(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_upper_case_json_beside_png_images(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.PNG")
    (tmp_path / "images" / "train" / "a.JSON").write_text(labelme(("house", SQUARE)))
    assert mask_of(tmp_path)[0] == ("background", "house")
    write_image(tmp_path / "images" / "train" / "b.png")  # is no mask of its own
    with pytest.raises(UserError, match=r"b\.json: no mask for the image .*b\.png \(looked for b\.json\)"):
        open_source(str(tmp_path))


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
    with pytest.raises(ValueError, match=r"a\.json: the label 'hut' is not a class in dataset\.json"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"shapes": 3}', '{"shapes": [{"label": "a"}]}', '{"shapes": [3]}'])
def test_bad_json_is_named(text: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "images" / "train" / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json"):
        open_source(str(tmp_path))
