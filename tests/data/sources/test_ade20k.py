import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.config import IGNORE_INDEX
from segformer.data.dataset import Pair
from segformer.data.label_table import INVALID, LabelTable
from segformer.data.loading import SegmentationDataset
from segformer.data.masks import read_mask
from segformer.data.sources.ade20k import CLASSES, PALETTE, TABLE, open_source, recognizes
from segformer.errors import UserError

FOLDERS = {"train": "training", "val": "validation"}


def write_pair(root: Path, split: str, name: str, ids: tuple[int, ...] = (0, 1, 150)) -> None:
    """An image (2, N) and its mask, whose columns have the ids."""
    image, mask = (root / kind / FOLDERS[split] / name for kind in ("images", "annotations"))
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (len(ids), 2)).save(f"{image}.jpg")
    Image.fromarray(np.array([ids, ids], np.uint8)).save(f"{mask}.png")


def official(root: Path) -> Path:
    for split, name in (("train", "ADE_train_00000002"), ("train", "ADE_train_00000001"), ("val", "ADE_val_00000001")):
        write_pair(root, split, name)
    return root


@pytest.mark.parametrize("given", [".", "ADEChallengeData2016"])
def test_the_official_folder_or_the_one_that_holds_it(given: str, tmp_path: Path) -> None:
    official(tmp_path / "ADEChallengeData2016")
    assert recognizes(tmp_path / given)
    source = open_source(str(tmp_path / given))
    names = {split: [sample.name for sample in samples] for split, samples in source.splits.items()}
    assert names == {"train": ["ADE_train_00000001", "ADE_train_00000002"], "val": ["ADE_val_00000001"]}
    assert source.name == "ade20k"
    assert len(source.classes) == len(source.palette) == 150


def test_raw_ids_are_one_more_than_the_classes_and_0_is_ignored() -> None:
    assert TABLE.values[[0, 1, 2, 150]].tolist() == [IGNORE_INDEX, 0, 1, 149]
    assert (TABLE.values[151:] == INVALID).all()
    assert CLASSES[0] == "wall"  # 1 in the official table
    assert CLASSES[12] == "person"  # 13
    assert CLASSES[149] == "flag"  # 150


def test_a_sample_has_classes(tmp_path: Path) -> None:
    write_pair(tmp_path, "val", "a", (0, 1, 13, 150))
    source = open_source(str(tmp_path))
    image, mask = SegmentationDataset(source.samples("val"), source.table, None)[0, 0]
    assert image.shape == (3, 2, 4)
    assert mask.tolist() == [[255, 0, 12, 149]] * 2


@pytest.mark.parametrize("raw", [151, 255])
def test_other_ids_name_the_mask(raw: int, tmp_path: Path) -> None:
    write_pair(tmp_path, "val", "a", (1, raw))
    source = open_source(str(tmp_path))
    with pytest.raises(ValueError, match=rf"annotations/validation/a\.png: .*got {raw} at 2 pixels"):
        SegmentationDataset(source.samples("val"), source.table, None)[0, 0]


def test_one_split_is_enough(tmp_path: Path) -> None:
    write_pair(tmp_path, "val", "a")
    write_pair(tmp_path, "train", "b")
    shutil.rmtree(tmp_path / "images/training")  # all masks, and only the images that are needed
    assert list(open_source(str(tmp_path)).splits) == ["val"]
    (pair,) = open_source(str(tmp_path)).samples("val")
    assert pair == Pair("a", tmp_path / "images/validation/a.jpg", tmp_path / "annotations/validation/a.png")


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "annotations/training/ADE_train_00000002.png").unlink()
    with pytest.raises(UserError, match=r"training/ADE_train_00000002\.png: no mask for .*00000002\.jpg"):
        open_source(str(tmp_path))


def test_a_split_without_masks_is_an_error_not_a_smaller_data_set(tmp_path: Path) -> None:
    official(tmp_path)
    shutil.rmtree(tmp_path / "annotations/training")
    with pytest.raises(UserError, match=r"annotations/training/ADE_train_00000001\.png: no mask"):
        open_source(str(tmp_path))


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "images/validation/ADE_val_00000001.jpg").unlink()
    with pytest.raises(ValueError, match="images/validation: no images found"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("root", ["", "gone"])
def test_a_missing_root_is_named(root: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no data folder at '{root and tmp_path / root}'; expected ADEChall"):
        open_source(str(tmp_path / root) if root else "")


@pytest.mark.parametrize(
    ("inside", "found"), [((), "nothing"), (("masks/train", ".git", "images/train"), "images/, m")]
)
def test_another_layout_says_expected_and_found(inside: tuple[str, ...], found: str, tmp_path: Path) -> None:
    for folder in inside:
        (tmp_path / folder).mkdir(parents=True)
    assert not recognizes(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: expected ADEChallengeData2016.*; found {found}"):
        open_source(str(tmp_path))


def test_a_long_folder_is_cut_short_in_the_message(tmp_path: Path) -> None:
    for k in range(11):
        (tmp_path / f"f{k:02}").touch()
    with pytest.raises(ValueError, match=r"found f00, .*, f07 and 3 more$"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("mapping", [{-1: 0}, {256: 0}, {0: 256}, {0: -2}])
def test_a_table_is_not_made_of_ids_or_classes_that_it_can_not_hold(mapping: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="a label table of size 256 must map ids 0-255 to classes 0-254"):
        LabelTable.from_mapping(mapping)


def test_real_masks_and_class_names(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "ade150_pairs"
    for kind, source, name in (
        ("images/training", "ADE_train_00000036.jpg", "ADE_train_00000036.jpg"),
        ("annotations/training", "ADE_train_00000036.png", "ADE_train_00000036.png"),
        ("images/validation", "ADE_val_00000001_image.jpg", "ADE_val_00000001.jpg"),
        ("annotations/validation", "ADE_val_00000001.png", "ADE_val_00000001.png"),
    ):
        (tmp_path / kind).mkdir(parents=True)
        shutil.copy(real / source, tmp_path / kind / name)
    for samples in open_source(str(tmp_path)).splits.values():
        (pair,) = samples
        assert isinstance(pair, Pair)
        raw = pair.read()[1]
        classes = TABLE.apply(raw, pair.mask)
        assert ((raw == 0) == (classes == IGNORE_INDEX)).all()
        assert (classes[raw > 0] == raw[raw > 0] - 1).all()
    seen = {CLASSES[raw - 1] for raw in np.unique(read_mask(real / "ADE_val_00000001.png")) if raw}
    assert {"building", "sky", "tree", "road", "grass"} <= seen
    with (real / "object150_info.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for index, (name, row) in enumerate(zip(CLASSES, rows, strict=True)):
        assert int(row["Idx"]) == index + 1
        assert row["Name"].replace(";", " ").startswith(name)
    assert len(PALETTE) == len(rows)
