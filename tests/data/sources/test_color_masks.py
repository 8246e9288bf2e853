import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.data.sources.color_masks import classes_of, read_palette
from segformer.data.sources.folder import open_source

COLORS = ((128, 64, 128), (0, 0, 142), (0, 0, 0))


def write_colored(root: Path, picture: np.ndarray, name: str = "a") -> Path:
    for kind in ("images", "masks"):
        (root / kind / "train").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros_like(picture)).save(root / "images" / "train" / f"{name}.jpg")
    Image.fromarray(picture).save(root / "masks" / "train" / f"{name}.png")
    return root


def test_colors_become_indices_and_void_is_ignored() -> None:
    picture = np.array([[COLORS[0], COLORS[1]], [COLORS[2], COLORS[0]]], dtype=np.uint8)
    assert classes_of(picture, COLORS[:2], COLORS[2:], "mask").tolist() == [[0, 1], [255, 0]]


def test_a_color_of_no_class_is_named() -> None:
    picture = np.array([[COLORS[0], (1, 2, 3)]], dtype=np.uint8)
    with pytest.raises(
        ValueError, match=r"mask\.png: expected only colors of the palette, got others in 1 pixels, such as \(1, 2, 3\)"
    ):
        classes_of(picture, COLORS, (), "mask.png")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("palette.txt", "road 128 64 128\ncar 0 0 142\nVoid 0 0 0\n"),
        ("palette.txt", "# colors\n128 64 128 road\n0 0 142 car\n0 0 0 unlabeled"),
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\ncar,0,0,142\nvoid,0,0,0\n"),
        ("palette.csv", "name;r;g;b\nroad;128;64;128\n\ncar;0;0;142\n;;;\nvoid;0;0;0\n"),
        ("palette.csv", 'name\tr\tg\tb\n"road"\t128\t64\t128\ncar\t0\t0\t142\nvoid\t0\t0\t0\n'),
        ("palette.json", json.dumps({"road": [128, 64, 128], "car": [0, 0, 142], "ignore": [0, 0, 0]})),
    ],
)
def test_palette_files(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_palette(tmp_path / name) == (("road", "car"), COLORS[:2], COLORS[2:])


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_names_of_several_words_in_a_palette(mark: str, tmp_path: Path) -> None:
    names = ("class 1", "road 2 of 3", "a b c d e") + (("road, paved",) if mark != "," else ())
    lines = [mark.join([name, str(index), "64", "128"]) for index, name in enumerate(names)]
    (tmp_path / "palette.csv").write_text("\n".join(lines))
    classes, colors, _ = read_palette(tmp_path / "palette.csv")
    assert classes == names
    assert colors == tuple((index, 64, 128) for index in range(len(names)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("palette.txt", "road 128 64 128\ncar 0 0\n", "line 2: expected a name and three numbers"),
        ("palette.csv", "car,0,0\n", "line 1: expected a name and three numbers"),
        ("palette.txt", "road 128 64 300\n", r"expected three numbers from 0 to 255"),
        ("palette.txt", "", "expected lines of a name and a color, found none"),
        ("palette.json", "[1]", "expected"),
        ("palette.json", '{"road": 3}', "palette.json, road: expected three numbers"),
    ],
)
def test_bad_palette_files(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_palette(tmp_path / name)


def test_a_folder_with_colored_masks_and_a_palette_file(tmp_path: Path) -> None:
    picture = np.full((40, 50, 3), COLORS[0], dtype=np.uint8)
    picture[:10], picture[30:] = COLORS[1], COLORS[2]
    write_colored(tmp_path, picture)
    (tmp_path / "palette.txt").write_text("road 128 64 128\ncar 0 0 142\nvoid 0 0 0\n")
    source = open_source(str(tmp_path))
    assert source.classes == ("road", "car")
    assert source.palette == COLORS[:2]
    image, raw = source.samples("train")[0].read()
    assert image.shape == (40, 50, 3)
    mask = source.table.apply(raw, "a")
    assert [int(mask[row, 0]) for row in (0, 20, 35)] == [1, 0, 255]


def test_a_folder_with_colored_masks_and_a_description(tmp_path: Path) -> None:
    write_colored(tmp_path, np.full((4, 5, 3), COLORS[1], dtype=np.uint8))
    description = {"classes": ["road", "car"], "palette": [list(color) for color in COLORS[:2]]}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    assert (open_source(str(tmp_path)).samples("train")[0].read()[1] == 1).all()


def test_colored_masks_without_names_for_the_colors(tmp_path: Path) -> None:
    write_colored(tmp_path, np.zeros((4, 5, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: expected an index mask, got colors; .*palette\.txt"):
        open_source(str(tmp_path))


def test_a_colored_mask_of_another_size(tmp_path: Path) -> None:
    write_colored(tmp_path, np.full((4, 5, 3), COLORS[0], dtype=np.uint8))
    (tmp_path / "palette.txt").write_text("road 128 64 128\n")
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "train" / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.png: expected a mask of its image's size 9 x 9"):
        open_source(str(tmp_path)).samples("train")[0].read()
