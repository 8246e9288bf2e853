import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from folder_trees import names, pairs, write_description, write_pair
from segformer.data.dataset import Pair
from segformer.data.sources.folder import open_source
from segformer.data.sources.folder_pairs import find_pairs, hash_splits
from segformer.errors import UserError


def test_nested_dotted_and_upper_case_names_find_their_masks(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/city/0001.left", suffix=".PNG")
    (pair,) = open_source(str(tmp_path)).samples("train")
    assert isinstance(pair, Pair)
    assert pair.name == "city/0001.left"
    assert pair.mask == tmp_path / "masks/train/city/0001.left.png"


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    for hidden in ("images/.cache/b.jpg", "images/train/.c.jpg", "images/.d.jpg"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    assert names(open_source(str(tmp_path))) == {"train": ["a"]}


@pytest.mark.parametrize("suffix", [".PNG", ".bmp", ".TIF", ".tiff"])
def test_masks_of_other_lossless_kinds(suffix: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a", suffix=".JPG")
    mask = tmp_path / "masks" / "train" / "a.png"
    Image.open(mask).save(mask.with_suffix(suffix))
    mask.unlink()
    write_description(tmp_path)
    (pair,) = open_source(str(tmp_path)).samples("train")
    assert pair.mask == mask.with_suffix(suffix)
    assert pair.read()[1].tolist() == [[0, 1, 2], [0, 1, 2]]


def test_of_several_masks_the_png_is_taken(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    for other in ("a.PNG", "a.tif", "a.json", "a.bmp", ".a.png"):
        (tmp_path / "masks" / "train" / other).touch()
    (pair,) = open_source(str(tmp_path)).samples("train")
    assert pair.mask.name == "a.png"


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.gif"])
def test_a_mask_that_can_not_be_used_is_named(name: str, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    mask = tmp_path / "masks" / "train" / "a.png"
    Image.open(mask).save(mask.with_name(name))
    mask.unlink()
    message = rf"a\.png: no mask for the image .*a\.jpg \(looked for a\.png, a\.json, .*{name} cannot be used: .*as PNG"
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_many_masks_cost_no_look_at_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(20):
        write_pair(tmp_path, f"train/{index}")
    asked: list[Path] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: asked.append(path) or is_file(path))
    assert len(find_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train", None)) == 20
    assert not [path for path in asked if "masks" in path.parts]


def test_the_split_of_a_name_never_changes() -> None:
    stems = [f"image_{k}" for k in range(15)] + ["Straße in Köln"]
    held_out = [name for name, split in split_of(stems).items() if split == "val"]  # as of 0.1: crc32 of the UTF-8
    assert held_out == [stem for stem in stems if zlib.crc32(stem.encode()) % 100 < 20]
    assert held_out


def split_of(stems: Sequence[str]) -> dict[str, str]:
    splits, _ = hash_splits(pairs(stems))
    return {pair.name: split for split, found in splits.items() for pair in found}


def test_without_splits_a_fifth_is_held_out() -> None:
    splits, (note,) = hash_splits(pairs([f"image_{k}" for k in range(1000)]))
    assert 160 <= len(splits["val"]) <= 240
    assert len(splits["train"]) + len(splits["val"]) == 1000
    assert f"{len(splits['val'])} of 1000" in note


def test_without_splits_another_file_moves_none() -> None:
    stems = [f"image_{k}" for k in range(30)]
    before = split_of(stems)
    assert set(before.values()) == {"train", "val"}
    for k in range(200):
        after = split_of([f"{chr(97 + k % 26)}new_{k}", *stems])
        assert {stem: after[stem] for stem in stems} == before
        fewer = [stem for stem in stems if stem != f"image_{k}"]
        assert {stem: before[stem] for stem in fewer} == split_of(fewer)


def test_without_splits_the_order_of_the_files_does_not_matter() -> None:
    stems = [f"image_{k}" for k in range(30)]
    assert split_of(stems) == split_of(stems[::-1])
    assert split_of(["a", "b"]) == split_of(["b", "a"])


@given(st.sets(st.text("abcdefgh0123456789", min_size=1, max_size=6), min_size=2, max_size=12))
def test_without_splits_neither_is_empty(stems: set[str]) -> None:
    split = split_of(sorted(stems))
    assert set(split) == stems
    assert set(split.values()) == {"train", "val"}


@pytest.mark.parametrize("stems", [["a", "b"], ["a", "b", "c", "d", "e"]])
def test_a_folder_of_loose_images(stems: list[str], tmp_path: Path) -> None:
    for stem in stems:
        write_pair(tmp_path, stem)
    source = open_source(str(tmp_path))
    assert sorted(name for found in names(source).values() for name in found) == stems
    assert all(names(source).values())
    assert any("no splits" in note for note in source.notes)
    assert source.samples("val")[0].read()[1].shape == (2, 3)


@pytest.mark.parametrize("stem", ["a", "b", "c", "d", "e", "f", "g"])
def test_a_single_image_is_in_one_split(stem: str, tmp_path: Path) -> None:
    write_pair(tmp_path, stem)
    found = names(open_source(str(tmp_path)))
    assert sorted(found["train"] + found["val"]) == [stem]


def test_loose_images_beside_folders_of_splits_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    write_pair(tmp_path, "loose")
    with pytest.raises(ValueError, match=r"images: expected either .*, found both.*loose\.jpg"):
        open_source(str(tmp_path))


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "masks/train/a.png").unlink()
    with pytest.raises(UserError, match=r"masks/train/a\.png: no mask for the image .*images/train/a\.jpg"):
        open_source(str(tmp_path))
