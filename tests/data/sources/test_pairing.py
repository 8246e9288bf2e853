from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.data.sources.pairing import check_root, has_split, list_pairs, read_split_lists, read_splits
from segformer.errors import UserError


def write_pair(root: Path, name: str) -> None:
    for part, suffix in (("images", ".jpg"), ("masks", ".png")):
        path = root / part / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)


def test_pairs_by_name_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/c"):
        write_pair(tmp_path, name)
    pairs = list_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.name for pair in pairs] == ["a", "b", "sub/c"]
    assert pairs[2].mask == tmp_path / "masks/sub/c.png"
    folders = {"train": (tmp_path / "images", tmp_path / "masks"), "val": (tmp_path / "no", tmp_path / "masks")}
    assert list(read_splits(folders)) == ["train"]
    assert has_split(folders)
    assert not has_split({"val": folders["val"]})


def test_a_root_is_checked_against_its_layout(tmp_path: Path) -> None:
    assert check_root(str(tmp_path), lambda _: True, "a/ and b/") == tmp_path
    for number in range(10):
        (tmp_path / f"folder_{number}").mkdir()
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(UserError, match=r"expected a/ and b/; found folder_0/, .*folder_7/ and 2 more"):
        check_root(str(tmp_path), lambda _: False, "a/ and b/")
    for root in ("", str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match=r"no data folder at .*; expected a/ and b/"):
            check_root(root, lambda _: True, "a/ and b/")


def test_split_lists_name_images_in_their_order(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_pair(tmp_path, name)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("c\nimages/a.jpg\n")
    (lists / "val.txt").write_text("b\n\n")
    (lists / "test.txt").write_text("")
    found = read_split_lists(lists, tmp_path / "images", tmp_path / "masks")
    assert {split: [pair.name for pair in pairs] for split, pairs in found.items()} == {
        "train": ["c", "a"],
        "val": ["b"],
    }
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png: no mask for the image"):
        read_split_lists(lists, tmp_path / "images", tmp_path / "masks")
