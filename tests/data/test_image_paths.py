from pathlib import Path

import pytest

from segformer.data.image_paths import expand_inputs, list_images
from segformer.errors import UserError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_below_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", "deep/er/c.JPeG", "deep/d.tiff", "notes.txt", "no_suffix")
    touch(tmp_path, ".hidden.jpg", ".cache/e.jpg", "deep/.thumbs/f.png", "deep/._c.jpg")
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.PNG", "b.jpg", "deep/d.tiff", "deep/er/c.JPeG"]


def test_a_hidden_folder_that_is_asked_for_is_read(tmp_path: Path) -> None:
    touch(tmp_path, ".data/a.jpg", ".data/.b.jpg")
    assert list_images(tmp_path / ".data") == [tmp_path / ".data/a.jpg"]


def test_a_folder_that_is_named_like_an_image_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "album.jpg/a.jpg")
    assert list_images(tmp_path) == [tmp_path / "album.jpg/a.jpg"]


def test_inputs_keep_their_order_and_their_place_below_folders(tmp_path: Path) -> None:
    touch(tmp_path, "z.png", "folder/b.jpg", "folder/sub/A.JPG", "folder/.hidden.png", "folder/readme.md")
    expanded = expand_inputs([str(tmp_path / "z.png"), tmp_path / "folder"])
    assert expanded == [
        (tmp_path / "z.png", Path("z.png")),
        (tmp_path / "folder/b.jpg", Path("b.jpg")),
        (tmp_path / "folder/sub/A.JPG", Path("sub/A.JPG")),
    ]


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(UserError, match=r"gone\.jpg: no such file or folder"):
        expand_inputs([tmp_path / "a.jpg", tmp_path / "gone.jpg"])


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "folder/notes.txt", "folder/.hidden.jpg")
    with pytest.raises(ValueError, match=r"folder: no images in this folder"):
        expand_inputs([tmp_path / "folder"])
