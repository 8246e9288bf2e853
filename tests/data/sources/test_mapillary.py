from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.config import IGNORE_INDEX
from segformer.data.dataset import Pair
from segformer.data.label_table import INVALID
from segformer.data.loading import SegmentationDataset
from segformer.data.masks import read_mask
from segformer.data.sources import cityscapes
from segformer.data.sources.mapillary import (
    CITYSCAPES_TABLE,
    CLASSES,
    PALETTE,
    TABLE,
    open_as_cityscapes,
    open_source,
    recognizes,
)
from segformer.errors import UserError

# raw ids in the order of Cityscapes' train ids
ROWS = [[13, 24, 41], [2, 15], [17], [6], [3], [45, 47], [48], [50], [30], [29], [27], [19], [20, 21, 22], [55], [61],
        [54], [58], [57], [52]]  # fmt: skip


def write_pair(folder: Path, name: str, ids: tuple[int, ...] = (0, 13, 65), labels: str = "labels") -> None:
    """An image (2, N) and its mask with a palette, whose columns have the ids."""
    for path in (folder / "images", folder / labels):
        path.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (len(ids), 2)).save(folder / "images" / f"{name}.jpg")
    mask = Image.fromarray(np.array([ids, ids], np.uint8), mode="P")
    mask.putpalette([value for color in PALETTE for value in color])
    mask.save(folder / labels / f"{name}.png")


def official(root: Path, labels: str = "labels") -> Path:
    write_pair(root / "training", "b", labels=labels)
    write_pair(root / "training", "a-_1", labels=labels)
    write_pair(root / "validation", "c", labels=labels)
    (root / "testing/images").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(root / "testing/images/d.jpg")
    return root


@pytest.mark.parametrize("labels", ["labels", "v1.2/labels"])
@pytest.mark.parametrize("read", [open_source, open_as_cityscapes])
def test_the_official_splits(read: type, labels: str, tmp_path: Path) -> None:
    source = read(str(official(tmp_path, labels)))
    assert recognizes(tmp_path)
    names = {split: [sample.name for sample in samples] for split, samples in source.splits.items()}
    assert names == {"train": ["a-_1", "b"], "val": ["c"]}  # the images of testing have no labels
    (pair,) = source.samples("val")
    assert pair == Pair("c", tmp_path / "validation/images/c.jpg", tmp_path / "validation" / labels / "c.png")


def test_labels_of_v2_are_not_taken_for_those_of_v1(tmp_path: Path) -> None:
    official(tmp_path, "v2.0/labels")
    assert not recognizes(tmp_path)


def test_its_own_65_classes_and_65_ignored(tmp_path: Path) -> None:
    assert TABLE.values.tolist() == [*range(65), IGNORE_INDEX]
    assert len(set(CLASSES)) == len(set(PALETTE)) == len(CLASSES) == len(PALETTE) == 65
    assert {raw: CLASSES[raw] for raw in (0, 13, 30, 64)} == {
        0: "Bird",
        13: "Road",
        30: "Vegetation",
        64: "Ego Vehicle",
    }
    write_pair(tmp_path / "training", "a", (0, 13, 64, 65))
    source = open_source(str(tmp_path))
    _, mask = SegmentationDataset(source.samples("train"), source.table, None)[0, 0]
    assert mask.tolist() == [[0, 13, 64, 255]] * 2


def test_as_cityscapes_the_ids_are_those_of_the_table() -> None:
    by_hand = [IGNORE_INDEX] * 66
    for index, row in enumerate(ROWS):
        for raw in row:
            by_hand[raw] = index
    assert CITYSCAPES_TABLE.values.tolist() == by_hand


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("road", {"Road", "Lane Marking - General", "Manhole"}),
        ("sidewalk", {"Curb", "Sidewalk"}),
        ("pole", {"Pole", "Utility Pole"}),
        ("traffic sign", {"Traffic Sign (Front)"}),
        ("rider", {"Bicyclist", "Motorcyclist", "Other Rider"}),
        ("train", {"On Rails"}),
        ("bicycle", {"Bicycle"}),
    ],
)
def test_as_cityscapes_the_names_agree(name: str, own: set[str]) -> None:
    (raw,) = np.nonzero(CITYSCAPES_TABLE.values == cityscapes.CLASSES.index(name))
    assert {CLASSES[k] for k in raw} == own


def test_as_cityscapes_every_pixel_is_mapped_once(tmp_path: Path) -> None:
    # mapped in place one class after another: 13 -> 0, then 2 -> 1, 17 -> 2 and so on would collide
    write_pair(tmp_path / "training", "a", (13, 2, 17, 6, 3, 19, 0, 65, 23))
    source = open_as_cityscapes(str(tmp_path))
    assert (source.classes, source.palette) == (cityscapes.CLASSES, cityscapes.PALETTE)
    _, mask = SegmentationDataset(source.samples("train"), source.table, None)[0, 0]
    assert mask.tolist() == [[0, 1, 2, 3, 4, 11, 255, 255, 255]] * 2


@pytest.mark.parametrize("read", [open_source, open_as_cityscapes])
@pytest.mark.parametrize("raw", [66, 123, 255])  # 123: a label of v2.0
def test_other_ids_name_the_mask(read: type, raw: int, tmp_path: Path) -> None:
    write_pair(tmp_path / "training", "a", (0, raw))
    source = read(str(tmp_path))
    with pytest.raises(ValueError, match=rf"training/labels/a\.png: .*got {raw} at 2 pixels"):
        SegmentationDataset(source.samples("train"), source.table, None)[0, 0]


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "training/labels/b.png").unlink()
    with pytest.raises(UserError, match=r"training/labels/b\.png: no mask for .*training/images/b\.jpg"):
        open_source(str(tmp_path))


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "validation/images/c.jpg").unlink()
    with pytest.raises(ValueError, match="validation/images: no images found"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("read", [open_source, open_as_cityscapes])
def test_a_wrong_root_says_expected_and_found(read: type, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no data folder at '{tmp_path / 'gone'}'"):
        read(str(tmp_path / "gone"))
    (tmp_path / "training/images").mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"{tmp_path}: expected training/ or validation/, .*; found training/"):
        read(str(tmp_path))


def test_real_labels_have_an_entry_and_the_colors(shared_data: Path) -> None:
    path = shared_data / "mapillary_mini/__CRyFzoDOXn6unQ6a3DnQ.png"
    raw = read_mask(path)
    ids = np.unique(raw)
    assert (TABLE.apply(raw, path) == raw).all()
    assert set(ids) == {17, 44, 45}
    assert INVALID not in CITYSCAPES_TABLE.values[ids]
    mapped = CITYSCAPES_TABLE.apply(raw, path)
    assert [np.unique(mapped[raw == k]).tolist() for k in (17, 44, 45)] == [[2], [255], [5]]
    with Image.open(path) as image:
        stored = image.getpalette()
    assert stored is not None
    assert stored[: 3 * 65] == [value for color in PALETTE for value in color]
