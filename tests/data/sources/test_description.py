import json
from pathlib import Path

import pytest

from folder_trees import CLASSES, PALETTE, write_description, write_pair
from segformer.data.sources.folder import open_source


def test_ids_too_high_to_count_name_the_mask(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    write_pair(tmp_path, "train/b", (0, 255, 300))
    with pytest.raises(ValueError, match=r"masks/train/b\.png: expected labels 0-254 .*got 300"):
        open_source(str(tmp_path))


def test_binary_masks_of_0_and_255_are_not_taken_for_one_class(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a", (0, 255))  # all of the foreground would be ignored
    with pytest.raises(ValueError, match="255"):
        open_source(str(tmp_path))


def test_a_description_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": CLASSES}), encoding="utf-8-sig")
    assert open_source(str(tmp_path)).classes == ("road", "tree", "sky")


@pytest.mark.parametrize("text", ["{'classes'}", "", '{"classes": ["a"', "\xff\xfe"])
def test_a_description_that_is_not_json_is_named(text: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"dataset\.json: expected JSON"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", '{"classes": []}', '{"classes": 3}', '{"classes": [1]}', '{"classes": "ab"}']
)
def test_a_description_without_classes_is_named(text: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r'dataset\.json: expected "classes"'):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    "palette",
    [
        PALETTE[:2],
        [*PALETTE, [0, 0, 0]],
        [],
        [[1, 2], *PALETTE[1:]],
        [[1, 2, 256], *PALETTE[1:]],
        [[1, 2, -1], *PALETTE[1:]],
        [[1, 2, 0.5], *PALETTE[1:]],
        ["red", *PALETTE[1:]],
        {"road": [1, 2, 3]},
        3,
        None,
    ],
)
def test_a_wrong_palette_is_named(palette: object, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    write_description(tmp_path, palette=palette)
    with pytest.raises(ValueError, match=r'dataset\.json: expected "palette" to contain 3 colors'):
        open_source(str(tmp_path))


@pytest.mark.parametrize("ignore_index", ["void", None, 2.5, [255], -1])
def test_a_wrong_ignore_index_is_named(ignore_index: object, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    write_description(tmp_path, ignore_index=ignore_index)
    with pytest.raises(ValueError, match=r"dataset\.json.*ignore_index"):
        open_source(str(tmp_path))


def test_too_many_classes_name_the_description(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": [f"c{k}" for k in range(256)]}))
    with pytest.raises(ValueError, match=r"dataset\.json.*at most 255 classes.*256"):
        open_source(str(tmp_path))
