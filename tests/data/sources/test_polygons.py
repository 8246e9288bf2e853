import base64
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segformer.data.sources.folder import open_source
from segformer.data.sources.polygons import Runs, decompress
from segformer.errors import UserError

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
        ({"shape_type": "circle"}, "expected the centre of a circle and a point on it, got 4 points"),
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


def test_an_image_that_coco_names_is_missing(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "coco.json").write_text(coco("a.jpg", "missing.jpg"))
    with pytest.raises(UserError, match=r"missing\.jpg: named in coco\.json"):
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
        ("categories", {"id": 3, "name": "door"}, "category 3: expected an id of its own, got it twice"),
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


def test_compressed_run_lengths_of_many_bits() -> None:
    y, x = np.mgrid[:40, :50]
    disc = ((x - 20) ** 2 + (y - 15) ** 2 < 100) & (x % 7 != 3)
    text = "S>9n02M4N0O2N2W10hN000000000Y1NjNN102L3Nfh0"  # made by pycocotools 2.0.11
    assert decompress(text) == list(Runs.of(disc, (0, 0)).counts)


@pytest.mark.parametrize("seed", range(4))
def test_runs_hold_every_pixel(seed: int) -> None:
    pixels = np.random.default_rng(seed).random((3, 4)) < 0.5
    assert np.array_equal(Runs.of(pixels, (0, 0)).pixels(), pixels)


def test_categories_of_the_same_name_are_one_class(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    categories = [{"id": 0, "name": "house"}, {"id": 3, "name": "house"}, {"id": 7, "name": "house"}]
    (tmp_path / "train.json").write_text(coco("a.jpg", categories=categories))
    classes, mask = mask_of(tmp_path)
    assert classes == ("background", "house")
    assert (mask == 1).sum() == 20 * 20


@pytest.mark.parametrize("names", [("train", "val"), ("instances_train", "instances_val")])
def test_files_of_keypoints_and_captions_are_left_out(names: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    for split, name in zip(("train", "val"), names, strict=True):
        write_image(tmp_path / "images" / split / "a.jpg")
        (folder / f"{name}.json").write_text(coco("a.jpg"))
        (folder / f"captions_{split}.json").write_text('{"images": [], "annotations": []}')
        keypoints = {"id": 1, "image_id": 0, "category_id": 1, "keypoints": [1, 2, 2], "area": 3}
        person = [{"id": 1, "name": "person"}]
        text = coco("a.jpg", annotations=[keypoints], categories=person)
        (folder / f"person_keypoints_{split}.json").write_text(text)
    (tmp_path / "package.json").write_text('{"name": "website"}')
    source = open_source(str(tmp_path))
    assert source.classes == ("background", "house", "door")
    left = "package.json, captions_train.json, captions_val.json, person_keypoints_train.json"
    assert source.notes[0] == f"masks from {names[0]}.json, {names[1]}.json; left out {left}, person_keypoints_val.json"


def test_two_coco_files_for_a_split_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(coco("a.jpg"))
    with pytest.raises(ValueError, match=r"expected one COCO file for each split, got one\.json, two\.json"):
        open_source(str(tmp_path))


def test_json_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "coco.json").write_text(coco("a.jpg"))
    (tmp_path / "package.json").write_text('{"name": "website"}')
    parsed: list[str] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
    open_source(str(tmp_path))
    assert len(parsed) == 2


def test_coco_beside_an_empty_folder_of_masks(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "masks").mkdir()
    (tmp_path / "train.json").write_text(coco("a.jpg"))
    assert mask_of(tmp_path)[0] == ("background", "house", "door")
