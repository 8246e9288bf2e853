import json
from pathlib import Path

import pytest

from drawn_shapes import coco, mask_of, write_image
from segformer.data.sources.folder import open_source


def test_coco_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "a.jpg")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(coco("a.jpg"))
    classes, mask = mask_of(tmp_path, "val")
    assert classes == ("background", "house", "door")
    assert (mask[0, 0], mask[6, 12], mask[12, 17]) == (0, 1, 2)  # the smaller one lies on top


def test_one_coco_file_is_split_by_a_hash(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(10)]
    for name in names:
        write_image(tmp_path / "images" / name)
    (tmp_path / "coco.json").write_text(coco(*names))
    source = open_source(str(tmp_path))
    assert len(source.samples("train")) + len(source.samples("val")) == 10
    assert source.samples("val")


@pytest.mark.parametrize("names", [("train", "val"), ("instances_train", "instances_val")])
def test_files_of_keypoints_and_captions_are_left_out(names: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    for split, name in zip(("train", "val"), names, strict=True):
        write_image(tmp_path / "images" / split / "a.jpg")
        (folder / f"{name}.json").write_text(coco("a.jpg"))
        (folder / f"captions_{split}.json").write_text('{"images": [], "annotations": []}')
        keypoints = {"id": 1, "image_id": 0, "category_id": 1, "keypoints": [1, 2, 2], "area": 3}
        person = [{"id": 1, "name": "person"}]
        text = coco("a.jpg", annotations=[keypoints], categories=person)
        (folder / f"person_keypoints_{split}.json").write_text(text)
    (tmp_path / "package.json").write_text('{"name": "website"}')
    source = open_source(str(tmp_path))
    assert source.classes == ("background", "house", "door")
    left = "package.json, captions_train.json, captions_val.json, person_keypoints_train.json"
    assert (
        source.notes[0]
        == f"masks are read from {names[0]}.json, {names[1]}.json, not from {left}, person_keypoints_val.json"
    )


def test_two_coco_files_for_a_split_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    for name in ("one.json", "two.json"):
        (tmp_path / name).write_text(coco("a.jpg"))
    with pytest.raises(ValueError, match=r"expected one COCO file for each split, got one\.json, two\.json"):
        open_source(str(tmp_path))


def test_json_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "coco.json").write_text(coco("a.jpg"))
    (tmp_path / "package.json").write_text('{"name": "website"}')
    parsed: list[str] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
    open_source(str(tmp_path))
    assert len(parsed) == 2


def test_coco_beside_an_empty_folder_of_masks(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    (tmp_path / "masks").mkdir()
    (tmp_path / "train.json").write_text(coco("a.jpg"))
    assert mask_of(tmp_path)[0] == ("background", "house", "door")
