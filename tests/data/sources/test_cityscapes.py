import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.config import IGNORE_INDEX
from segformer.data.dataset import Pair
from segformer.data.label_table import INVALID
from segformer.data.loading import SegmentationDataset
from segformer.data.masks import read_mask
from segformer.data.sources.cityscapes import CLASSES, PALETTE, TABLES, list_pairs, open_source, recognizes
from segformer.errors import UserError

IDS, TRAIN_IDS = ("labelIds",), ("labelIds", "labelTrainIds")
NAMES = {
    "train": ("aachen/aachen_000000_000019", "bochum/bochum_000000_000313"),
    "val": ("frankfurt/frankfurt_000000_000294",),
    "test": ("berlin/berlin_000000_000019",),
    "train_extra": ("augsburg/augsburg_000000_000000",),
}


def write_pair(root: Path, split: str, name: str, kinds: tuple[str, ...] = IDS) -> None:
    """An image (2, 3) with road, car and ego vehicle in each kind of label file."""
    annotation = "gtCoarse" if split == "train_extra" else "gtFine"
    image, mask = root / "leftImg8bit" / split / name, root / annotation / split / name
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(f"{image}_leftImg8bit.png")
    for kind in kinds:
        ids = [7, 26, 1] if kind == "labelIds" else [0, 13, 255]
        Image.fromarray(np.array([ids, ids], np.uint8)).save(f"{mask}_{annotation}_{kind}.png")
    Image.new("RGBA", (3, 2)).save(f"{mask}_{annotation}_color.png")  # beside the labels in the official folder
    Path(f"{mask}_{annotation}_polygons.json").write_text("{}")


def official(root: Path, kinds: tuple[str, ...] = IDS) -> Path:
    for split, names in NAMES.items():
        for name in names:
            write_pair(root, split, name, kinds)
    return root


def masks(root: Path) -> dict[str, list[str]]:
    """The mask files of each split, as found."""
    return {
        split: [sample.mask.name for sample in samples if isinstance(sample, Pair)]
        for split, samples in open_source(str(root)).splits.items()
    }


def test_the_official_splits_and_trainval(tmp_path: Path) -> None:
    source = open_source(str(official(tmp_path)))
    names = {split: tuple(sample.name for sample in samples) for split, samples in source.splits.items()}
    assert names == NAMES | {"trainval": NAMES["train"] + NAMES["val"]}
    assert source.name == "cityscapes"
    assert len(source.classes) == len(source.palette) == 19
    assert recognizes(tmp_path)


@pytest.mark.parametrize("kinds", [IDS, TRAIN_IDS, ("labelTrainIds",)])
def test_train_ids_are_read_where_they_are_and_give_the_same_classes(kinds: tuple[str, ...], tmp_path: Path) -> None:
    source = open_source(str(official(tmp_path, kinds)))
    for split, samples in source.splits.items():
        assert {mask.split("_")[-1] for mask in masks(tmp_path)[split]} == {f"{kinds[-1]}.png"}
        _, mask = SegmentationDataset(samples, source.table, None)[0, 0]
        assert mask.tolist() == [[0, 13, 255]] * 2
    assert source.notes == (f"labels are read from *_{kinds[-1]}.png",)


def test_coarse_labels_are_those_of_train_extra(tmp_path: Path) -> None:
    official(tmp_path)
    found = masks(tmp_path)
    assert found["train_extra"] == ["augsburg_000000_000000_gtCoarse_labelIds.png"]
    assert found["test"] == ["berlin_000000_000019_gtFine_labelIds.png"]


def test_one_image_without_train_ids_makes_all_splits_use_the_ids(tmp_path: Path) -> None:
    official(tmp_path, TRAIN_IDS)
    (tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png").unlink()
    assert all(mask.endswith("_labelIds.png") for found in masks(tmp_path).values() for mask in found)


def test_the_34_ids_of_the_official_table() -> None:
    by_hand = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255, 255]
    by_hand += [16, 17, 18]
    values = TABLES["labelIds"].values
    assert values[:34].tolist() == by_hand
    assert (values[34:255] == INVALID).all()
    assert values[255] == IGNORE_INDEX  # id -1, the license plate, in 8 bits
    assert {CLASSES[values[raw]]: raw for raw in (7, 17, 24, 31, 33)} == {
        "road": 7, "pole": 17, "person": 24, "train": 31, "bicycle": 33,
    }  # fmt: skip
    assert PALETTE[values[26]] == (0, 0, 142)  # car


def test_train_ids_are_the_classes() -> None:
    values = TABLES["labelTrainIds"].values
    assert values[:19].tolist() == list(range(19))
    assert (values[19:255] == INVALID).all()
    assert values[255] == IGNORE_INDEX


def test_an_id_that_must_not_occur_names_its_file(tmp_path: Path) -> None:
    write_pair(tmp_path, "val", "a/a", IDS)
    shutil.copy(tmp_path / "gtFine/val/a/a_gtFine_labelIds.png", tmp_path / "gtFine/val/a/a_gtFine_labelTrainIds.png")
    source = open_source(str(tmp_path))  # ids where train ids are expected
    with pytest.raises(ValueError, match=r"a_gtFine_labelTrainIds\.png: .*got 26 at 2 pixels"):
        SegmentationDataset(source.samples("val"), source.table, None)[0, 0]


@pytest.mark.parametrize("split", ["train", "val", "test", "train_extra"])
def test_an_image_without_labels_is_named(split: str, tmp_path: Path) -> None:
    official(tmp_path, TRAIN_IDS)
    name, annotation = NAMES[split][-1], "gtCoarse" if split == "train_extra" else "gtFine"
    for kind in TRAIN_IDS:
        (tmp_path / f"{annotation}/{split}/{name}_{annotation}_{kind}.png").unlink()
    match = rf"{name}_{annotation}_labelIds\.png: no mask for the image .*{name}_leftImg8bit\.png"
    with pytest.raises(UserError, match=match):
        open_source(str(tmp_path))


def test_mixed_kinds_of_labels_name_a_file_of_each(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", "a/a_1", IDS)
    write_pair(tmp_path, "train", "a/a_2", ("labelTrainIds",))
    match = r"one kind .*a_1_gtFine_labelTrainIds\.png is missing, and so is .*a_2_gtFine_labelIds\.png"
    with pytest.raises(ValueError, match=match):
        open_source(str(tmp_path))
    missing = [pair.mask.name for pair in list_pairs(tmp_path, "train", "labelIds") if not pair.mask.is_file()]
    assert missing == ["a_2_gtFine_labelIds.png"]


def test_a_split_without_labels_is_left_out_with_a_note(tmp_path: Path) -> None:
    official(tmp_path)
    shutil.rmtree(tmp_path / "gtCoarse")
    shutil.rmtree(tmp_path / "gtFine/test")
    source = open_source(str(tmp_path))
    assert list(source.splits) == ["train", "val", "trainval"]
    assert source.notes[1:] == (
        f"test is left out: no labels at {tmp_path / 'gtFine/test'}",
        f"train_extra is left out: no labels at {tmp_path / 'gtCoarse/train_extra'}",
    )


def test_trainval_needs_both(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", "a/a")
    assert list(open_source(str(tmp_path)).splits) == ["train"]


@pytest.mark.parametrize("other", ["", "a/a_leftImg8bit_foggy_beta_0.01.png", "a/._b_leftImg8bit.png"])
def test_an_empty_split_is_named(other: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "train", "a/a")
    for folder in ("leftImg8bit/val/a", "gtFine/val/a"):
        (tmp_path / folder).mkdir(parents=True)
    if other:
        (tmp_path / "leftImg8bit/val" / other).touch()
    with pytest.raises(ValueError, match="leftImg8bit/val: no images found"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("inside", [(), ("leftImg8bit/val",), ("gtFine/val",), ("leftImg8bit/val", "gtFine/train")])
def test_another_layout_says_expected_and_found(inside: tuple[str, ...], tmp_path: Path) -> None:
    for folder in inside:
        (tmp_path / folder).mkdir(parents=True)
    assert not recognizes(tmp_path)
    found = ", ".join(sorted({f"{folder.split('/')[0]}/" for folder in inside})) or "nothing"
    with pytest.raises(ValueError, match=rf"{tmp_path}: expected leftImg8bit/ and gtFine/ .*; found {found}"):
        open_source(str(tmp_path))


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no data folder at '{tmp_path / 'gone'}'; expected leftImg8bit/"):
        open_source(str(tmp_path / "gone"))


def test_real_labels_follow_the_table(shared_data: Path) -> None:
    source = open_source(str(shared_data / "cityscapes_mini"))
    (pair,) = source.samples("val")
    assert isinstance(pair, Pair)
    train_ids = source.table.apply(pair.read()[1], pair.mask)
    (by_ids,) = list_pairs(shared_data / "cityscapes_mini", "val", "labelIds")
    mapped = TABLES["labelIds"].apply(read_mask(by_ids.mask), by_ids.mask)
    assert mapped.size == 32_768
    assert int((mapped != train_ids).sum()) == 77  # the two files were shrunk apart
