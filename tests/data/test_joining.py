import json
from pathlib import Path

import numpy as np
import pytest

from conftest import CLASSES, write_folder
from segformer.config import DataConfig
from segformer.data.dataset import DataSource
from segformer.data.joining import join, relabel
from segformer.data.label_table import LabelTable
from segformer.data.sources.catalog import open_data


def labels(source: DataSource, split: str) -> list[np.ndarray]:
    return [source.table.apply(sample.read()[1], sample.name) for sample in source.samples(split)]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same classes in another order, with ids of their own, and one split more."""
    root = write_folder(tmp_path / "other", {"train": 3, "test": 2})
    (root / "dataset.json").write_text(json.dumps({"classes": CLASSES[::-1]}))
    return root


def test_samples_follow_one_another_split_by_split(small_data: Path, other: Path) -> None:
    joined = open_data(DataConfig(root=str(small_data), also=(str(other),)))
    assert {split: len(samples) for split, samples in joined.splits.items()} == {"train": 13, "val": 4, "test": 2}
    assert joined.classes == tuple(CLASSES)
    assert joined.name == f"{small_data} + {other}"


def test_classes_are_found_by_name(small_data: Path, other: Path) -> None:
    joined = open_data(DataConfig(root=str(small_data), also=(f"folder={other}",)))
    first, second = open_data(str(small_data)), open_data(str(other))
    both = labels(joined, "train")
    assert all(np.array_equal(a, b) for a, b in zip(both[:10], labels(first, "train"), strict=True))
    turned = [np.where(mask == 255, 255, 2 - mask) for mask in labels(second, "train")]
    assert all(np.array_equal(a, b) for a, b in zip(both[10:], turned, strict=True))


def test_a_part_of_the_classes_is_enough(small_data: Path, tmp_path: Path) -> None:
    few = write_folder(tmp_path / "few", {"train": 1})
    (few / "dataset.json").write_text(json.dumps({"classes": ["square", "disc", "ground"]}))
    relabeled = open_data(DataConfig(root=str(few), relabel=(("disc", ""),)))
    joined = join([open_data(str(small_data)), relabeled])
    assert set(np.unique(labels(joined, "train")[-1])) <= {0, 2, 255}


def test_a_class_of_its_own_is_named(small_data: Path, tmp_path: Path) -> None:
    strange = write_folder(tmp_path / "strange", {"train": 1})
    (strange / "dataset.json").write_text(json.dumps({"classes": ["ground", "disc", "star"]}))
    with pytest.raises(ValueError, match=r"strange has the class 'star', which .*data does not have .*data\.relabel"):
        open_data(DataConfig(root=str(small_data), also=(str(strange),)))


def test_a_wrong_label_names_its_mask(small_data: Path, other: Path) -> None:
    (other / "dataset.json").write_text(json.dumps({"classes": ["square", "ground"]}))
    joined = join([open_data(str(small_data)), open_data(str(other))])
    with pytest.raises(ValueError, match=r"other/masks/train/\d+\.png: expected labels 0-1 or 255"):
        labels(joined, "train")


def test_relabel_comes_before_the_join(small_data: Path, other: Path) -> None:
    config = DataConfig(root=str(small_data), relabel=(("disc", "thing"), ("square", "thing")), also=(str(other),))
    with pytest.raises(ValueError, match="has the class 'square'"):
        open_data(config)


def test_of_toytown_and_a_folder(small_data: Path) -> None:
    with pytest.raises(ValueError, match="toytown has the class 'sky'"):
        open_data(DataConfig(root=str(small_data), also=("toytown",)))
    doubled = open_data(DataConfig(dataset="toytown", also=("toytown",)))
    assert len(doubled.samples("val")) == 120
    assert np.array_equal(doubled.samples("val")[60].read()[0], open_data("toytown").samples("val")[0].read()[0])


SOURCE = DataSource(
    "street", ("road", "car", "bus", "sky"), ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)), LabelTable.identity(4), {}
)


def test_merging_renaming_and_ignoring() -> None:
    changed = relabel(SOURCE, (("bus", "vehicle"), ("car", "vehicle"), ("sky", "")))
    assert changed.classes == ("road", "vehicle")
    assert changed.palette == ((1, 1, 1), (2, 2, 2))
    raw = np.array([[0, 1, 2, 3, 255]], dtype=np.uint8)
    assert changed.table.apply(raw, "mask").tolist() == [[0, 1, 1, 255, 255]]
    with pytest.raises(ValueError, match="expected labels"):
        changed.table.apply(np.array([[4]], dtype=np.uint8), "mask")


def test_nothing_to_change() -> None:
    changed = relabel(SOURCE, ())
    assert changed.classes == SOURCE.classes
    assert np.array_equal(changed.table.values, SOURCE.table.values)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"data\.relabel must be one of .* did you mean 'car'"):
        relabel(SOURCE, (("cars", "vehicle"),))
    with pytest.raises(ValueError, match="must leave at least two classes, got all"):
        relabel(SOURCE, tuple((name, "all") for name in SOURCE.classes))
