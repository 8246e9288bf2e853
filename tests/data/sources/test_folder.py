from pathlib import Path

import numpy as np
import pytest

from folder_trees import names, write_description, write_pair
from segformer.data.sources.folder import open_source
from segformer.errors import UserError

REAL = Path(__file__).resolve().parents[4] / "shared" / "data"


def test_the_layout_with_a_description(tmp_path: Path) -> None:
    for place in ("train/b", "train/a", "val/c"):
        write_pair(tmp_path, place)
    write_description(tmp_path, ignore_index=7)
    source = open_source(str(tmp_path))
    assert source.classes == ("road", "tree", "sky")
    assert source.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert names(source) == {"train": ["a", "b"], "val": ["c"]}
    assert source.notes == ()
    assert source.table.apply(np.array([[0, 1, 2, 7]], np.uint8), "mask").tolist() == [[0, 1, 2, 255]]
    image, mask = source.samples("val")[0].read()
    assert image.shape == (2, 3, 3)
    assert mask.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_palette_and_ignore_index_may_be_left_out(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "dataset.json").write_text('{"classes": ["road", "tree", "sky"], "licence": "CC0"}')
    source = open_source(str(tmp_path))
    assert len(set(source.palette)) == 3
    assert source.table.apply(np.array([[2, 255]], np.uint8), "mask").tolist() == [[2, 255]]


def test_without_a_description_the_classes_are_counted(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a", (0, 1, 255))
    write_pair(tmp_path, "val/b", (0, 255, 4))
    source = open_source(str(tmp_path))
    assert source.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert len(source.palette) == 5
    (note,) = source.notes
    assert "dataset.json" in note
    assert "5 classes" in note


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b'{"images": [], "annotations": 3, "categories": {}}'])
def test_other_json_does_not_matter_where_there_are_masks(data: bytes, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "annotations").mkdir()
    for place in ("notes.json", "annotations/instances_train.json"):
        (tmp_path / place).write_bytes(data)
    assert names(open_source(str(tmp_path))) == {"train": ["a"]}


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_missing_part_is_named(part: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "a")
    (tmp_path / part).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{tmp_path}: .*found no {part}/"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("inside", ["", "train", "train/deep"])
def test_folders_without_images_are_named(inside: str, tmp_path: Path) -> None:
    (tmp_path / "images" / inside).mkdir(parents=True)
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match="images: no images found"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("root", ["gone", "file.txt"])
def test_a_root_that_is_no_folder_is_named(root: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    with pytest.raises(UserError, match=f"{root}.*--data"):
        open_source(str(tmp_path / root))


@pytest.mark.parametrize(
    ("name", "sizes", "num_classes"),
    [("camvid11", {"train": 367, "val": 101, "test": 233}, 11), ("dubai6_mini", {"train": 24, "val": 8}, 5)],
)
def test_real_data_with_splits(name: str, sizes: dict[str, int], num_classes: int) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"needs {REAL / name}")
    source = open_source(str(REAL / name))
    assert {split: len(samples) for split, samples in source.splits.items()} == sizes
    assert len(source.classes) == len(source.palette) == num_classes
    for samples in source.splits.values():
        image, mask = samples[-1].read()
        classes = source.table.apply(mask, samples[-1].name)
        assert image.shape[:2] == classes.shape
        assert len(np.unique(classes[classes < num_classes])) >= 2


def test_real_data_without_splits() -> None:
    if not (REAL / "suim8").is_dir():
        pytest.skip(f"needs {REAL / 'suim8'}")
    source = open_source(str(REAL / "suim8"))
    assert sum(len(samples) for samples in source.splits.values()) == 8
    assert all(len(samples) > 0 for samples in source.splits.values())
    assert len(source.classes) == 8
    (note,) = source.notes
    assert "no splits" in note
    for sample in [*source.samples("train"), *source.samples("val")]:
        assert set(np.unique(source.table.apply(sample.read()[1], sample.name))) <= {*range(8), 255}
