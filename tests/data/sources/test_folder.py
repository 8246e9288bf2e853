import json
import os
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segformer.data.dataset import DataSource, Pair
from segformer.data.sources import folder
from segformer.data.sources.folder import hash_splits, open_source
from segformer.errors import UserError

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CLASSES = ["road", "tree", "sky"]
PALETTE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def write_pair(folder: Path, place: str, ids: Sequence[int] = (0, 1, 2), suffix: str = ".jpg") -> None:
    """An image (2, N) at images/<place> and its mask, whose columns have the ids."""
    for part in ("images", "masks"):
        (folder / part / place).parent.mkdir(parents=True, exist_ok=True)
    mask = np.array([ids, ids])
    Image.new("RGB", (len(ids), 2)).save(folder / "images" / f"{place}{suffix}")
    Image.fromarray(mask.astype(np.uint8 if mask.max() < 256 else np.uint16)).save(folder / "masks" / f"{place}.png")


def write_description(folder: Path, **changes: Any) -> None:
    values = {"classes": CLASSES, "palette": PALETTE, "ignore_index": 255} | changes
    (folder / "dataset.json").write_text(json.dumps(values))


def names(source: DataSource) -> dict[str, list[str]]:
    return {split: [sample.name for sample in samples] for split, samples in source.splits.items()}


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


def test_ids_too_high_to_count_name_the_mask(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    write_pair(tmp_path, "train/b", (0, 255, 300))
    with pytest.raises(ValueError, match=r"masks/train/b\.png: expected labels 0-254 .*got 300"):
        open_source(str(tmp_path))


def test_binary_masks_of_0_and_255_are_not_taken_for_one_class(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a", (0, 255))  # all of the foreground would be ignored
    with pytest.raises(ValueError, match="255"):
        open_source(str(tmp_path))


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
    message = rf"a\.png: no mask for the image .*a\.jpg \(looked for a\.png, a\.json, .*{name} can't be used: .*as PNG"
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))


def test_many_masks_cost_no_look_at_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(20):
        write_pair(tmp_path, f"train/{index}")
    asked: list[Path] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: asked.append(path) or is_file(path))
    assert len(folder.find_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train", None)) == 20
    assert not [path for path in asked if "masks" in path.parts]


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


def test_the_split_of_a_name_never_changes() -> None:
    stems = [f"image_{k}" for k in range(15)] + ["Straße in Köln"]
    held_out = [name for name, split in split_of(stems).items() if split == "val"]  # as of 0.1: crc32 of the UTF-8
    assert held_out == [stem for stem in stems if zlib.crc32(stem.encode()) % 100 < 20]
    assert held_out


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


def test_a_description_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": CLASSES}), encoding="utf-8-sig")
    assert open_source(str(tmp_path)).classes == ("road", "tree", "sky")


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b'{"images": [], "annotations": 3, "categories": {}}'])
def test_other_json_does_not_matter_where_there_are_masks(data: bytes, tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "annotations").mkdir()
    for place in ("notes.json", "annotations/instances_train.json"):
        (tmp_path / place).write_bytes(data)
    assert names(open_source(str(tmp_path))) == {"train": ["a"]}


def pairs(stems: Sequence[str]) -> list[Pair]:
    return [Pair(stem, Path(f"images/{stem}.jpg"), Path(f"masks/{stem}.png")) for stem in stems]


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
    with pytest.raises(ValueError, match=r"images: expected folders of splits or images, found both.*loose\.jpg"):
        open_source(str(tmp_path))


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "masks/train/a.png").unlink()
    with pytest.raises(UserError, match=r"masks/train/a\.png: no mask for the image .*images/train/a\.jpg"):
        open_source(str(tmp_path))


def test_a_listed_name_without_an_image_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path, "train/a")
    (tmp_path / "train.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"train\.txt: names 'b'.*images/train"):
        open_source(str(tmp_path))


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
    with pytest.raises(ValueError, match=r'dataset\.json: expected "palette" to hold 3 colours'):
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
