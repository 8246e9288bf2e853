from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.config import IGNORE_INDEX
from segformer.data.dataset import Pair
from segformer.data.label_table import INVALID
from segformer.data.loading import SegmentationDataset
from segformer.data.sources.coco_stuff import CLASSES, PALETTE, TABLE, open_source, recognizes
from segformer.errors import UserError

ABSENT = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]
VARIANTS = [
    (images, masks)
    for images in ("images/", "")
    for masks in ("annotations", "stuffthingmaps", "annotations/stuffthingmaps", "stuffthingmaps_trainval2017")
]


def write_pair(images: Path, masks: Path, name: str, ids: tuple[int, ...] = (0, 181, 255)) -> None:
    """An image (2, N) and its mask, whose columns have the ids."""
    for path in (images, masks):
        path.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (len(ids), 2)).save(images / f"{name}.jpg")
    Image.fromarray(np.array([ids, ids], np.uint8)).save(masks / f"{name}.png")


@pytest.mark.parametrize(("images", "masks"), VARIANTS)
def test_the_usual_places(images: str, masks: str, tmp_path: Path) -> None:
    for year in ("train2017", "val2017"):
        write_pair(tmp_path / f"{images}{year}", tmp_path / masks / year, f"0000_{year}")
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations/instances_val2017.json").write_text("{}")
    assert recognizes(tmp_path)
    source = open_source(str(tmp_path))
    for split, year in (("train", "train2017"), ("val", "val2017")):
        name = f"0000_{year}"
        image, mask = tmp_path / f"{images}{year}/{name}.jpg", tmp_path / masks / year / f"{name}.png"
        assert source.samples(split) == [Pair(name, image, mask)]
    assert source.name == "coco_stuff"


def test_171_classes_and_11_ids_that_never_occur() -> None:
    values = TABLE.values
    assert [raw for raw in range(182) if values[raw] == INVALID] == ABSENT
    assert [int(v) for v in values[:182] if v != INVALID] == list(range(171))
    assert (values[182:255] == INVALID).all()
    assert values[255] == IGNORE_INDEX


@pytest.mark.parametrize(
    ("raw", "index", "name"),  # raw = the published id - 1; index = raw - the absent ids below it
    [
        (0, 0, "person"),
        (10, 10, "fire hydrant"),
        (12, 11, "stop sign"),  # after 11, the street sign
        (24, 23, "giraffe"),
        (26, 24, "backpack"),
        (89, 79, "toothbrush"),  # the last of COCO's 80 things
        (91, 80, "banner"),  # the first of its 91 kinds of stuff
        (148, 137, "road"),
        (156, 145, "sky-other"),
        (181, 170, "wood"),
    ],
)
def test_ids_worked_by_hand(raw: int, index: int, name: str) -> None:
    assert TABLE.values[raw] == index
    assert CLASSES[index] == name


def test_names_and_colors_are_all_different() -> None:
    assert len(set(CLASSES)) == len(set(PALETTE)) == len(CLASSES) == len(PALETTE) == 171


def test_a_sample_has_classes(tmp_path: Path) -> None:
    write_pair(tmp_path / "images/val2017", tmp_path / "annotations/val2017", "a", (0, 12, 181, 255))
    Image.new("L", (4, 2)).save(tmp_path / "annotations/val2017/a_labelTrainIds.png")  # other tools leave these here
    source = open_source(str(tmp_path))
    assert list(source.splits) == ["val"]
    _, mask = SegmentationDataset(source.samples("val"), source.table, None)[0, 0]
    assert mask.tolist() == [[0, 11, 170, 255]] * 2


@pytest.mark.parametrize("raw", [11, 90, 182, 254])
def test_an_absent_id_names_the_mask(raw: int, tmp_path: Path) -> None:
    write_pair(tmp_path / "images/val2017", tmp_path / "annotations/val2017", "a", (0, raw))
    source = open_source(str(tmp_path))
    with pytest.raises(ValueError, match=rf"annotations/val2017/a\.png: .*got {raw} at 2 pixels"):
        SegmentationDataset(source.samples("val"), source.table, None)[0, 0]


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path / "images/val2017", tmp_path / "annotations/val2017", "a")
    (tmp_path / "annotations/val2017/a.png").unlink()
    with pytest.raises(UserError, match=r"annotations/val2017/a\.png: no mask for .*images/val2017/a\.jpg"):
        open_source(str(tmp_path))


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path / "images/val2017", tmp_path / "annotations/val2017", "a")
    (tmp_path / "images/train2017").mkdir()
    with pytest.raises(ValueError, match="images/train2017: no images found"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("inside", ["images/val2017", "annotations/val2017", "images/validation"])
def test_another_layout_says_expected_and_found(inside: str, tmp_path: Path) -> None:
    (tmp_path / inside).mkdir(parents=True)
    (tmp_path / "annotations/training").mkdir(parents=True)
    assert not recognizes(tmp_path)
    with pytest.raises(ValueError, match=rf"{tmp_path}: expected images/ and annotations/ .*; found annotations/"):
        open_source(str(tmp_path))


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no data folder at '{tmp_path / 'gone'}'"):
        open_source(str(tmp_path / "gone"))
