import os
import unicodedata
from pathlib import Path

import pytest

from folder_trees import names, write_pair
from segformer.data.sources.folder import open_source
from segformer.errors import UserError


def test_a_list_names_the_images_of_its_split(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "train/deep/c", "val/d", "val/e"):
        write_pair(tmp_path, place)
    (tmp_path / "train.txt").write_text("deep/c\na\n")
    assert names(open_source(str(tmp_path))) == {"train": ["deep/c", "a"], "val": ["d", "e"]}


def test_a_list_may_name_images_with_a_space(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/street 1")
    (tmp_path / "train.txt").write_text("street 1\n")
    assert names(open_source(str(tmp_path))) == {"train": ["street 1"]}


def test_an_image_that_a_list_leaves_out_needs_no_mask(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    write_pair(tmp_path, "train/b")
    (tmp_path / "masks/train/b.png").unlink()
    (tmp_path / "train.txt").write_text("a\n")
    assert names(open_source(str(tmp_path))) == {"train": ["a"]}


@pytest.mark.parametrize("image_form", ["NFC", "NFD"])
def test_accents_may_be_spelled_in_two_ways(image_form: str, tmp_path: Path) -> None:
    mask_form = {"NFC": "NFD", "NFD": "NFC"}[image_form]
    write_pair(tmp_path, "train/a")
    for part, form in (("images", image_form), ("masks", mask_form)):
        path = next((tmp_path / part / "train").iterdir())
        place = path.with_name(unicodedata.normalize(form, "Köln")) / unicodedata.normalize(form, f"Café{path.suffix}")
        place.parent.mkdir()
        path.rename(place)
    for text in ("", unicodedata.normalize(mask_form, "Köln/Café")):
        (tmp_path / "train.txt").write_text(text or "Köln/Café", encoding="utf-8")
        assert names(open_source(str(tmp_path))) == {"train": ["Köln/Café"]}


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    for name in ("a", "b", os.fsdecode(b"K\xf6ln")):
        write_pair(tmp_path, name)
    splits = open_source(str(tmp_path)).splits
    assert sorted(pair.name for pairs in splits.values() for pair in pairs) == ["K\udcf6ln", "a", "b"]
    (tmp_path / "train.txt").write_bytes(b"K\xf6ln\n")
    assert names(open_source(str(tmp_path))) == {"train": ["K\udcf6ln"]}


@pytest.mark.parametrize(
    "line", ["a", "a.jpg", "./a.JPG", "train/a", "images/train/a.jpg", "/home/me/data/images/train/a.jpg", "\ufeffa"]
)
def test_a_list_may_hold_paths_and_endings(line: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    write_pair(tmp_path, "train/b")
    (tmp_path / "train.txt").write_text(f"{line}\n", encoding="utf-8")
    assert names(open_source(str(tmp_path))) == {"train": ["a"]}


@pytest.mark.parametrize("line", ["val/a.jpg", "images/val/a", "images/train/train/a.jpg", "a.txt"])
def test_a_line_that_means_none_or_two_is_refused(line: str, tmp_path: Path) -> None:
    for place in ("train/a", "train/train/a", "val/a"):
        write_pair(tmp_path, place)
    (tmp_path / "train.txt").write_text(line)
    with pytest.raises(UserError, match=rf"train\.txt: names '{line}', but there is no such image"):
        open_source(str(tmp_path))


def test_a_listed_name_without_an_image_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "train.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"train\.txt: names 'b'.*images/train"):
        open_source(str(tmp_path))
