from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segformer.errors import UserError
from segformer.inference.image_files import plan_outputs, segment_files
from segformer.inference.predictor import Predictor
from segformer.models.build import build_model
from segformer.segmentation import Output, Segmentation

ALL: tuple[Output, ...] = ("mask", "overlay", "polygons", "scores")


def touch(root: Path, *names: str) -> list[Path]:
    """Make files; a plan needs their names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"an image")
    return [root / name for name in names]


def planned(inputs: Sequence[Path], out: Path, outputs: Sequence[str] = ("mask",)) -> dict[str, str]:
    """{name of the image: path below ``out``}"""
    return {path.name: base.relative_to(out).as_posix() for path, base in plan_outputs(inputs, out, outputs)}


def saved(inputs: Sequence[Path], out: Path, outputs: Sequence[Output]) -> list[Path]:
    """Save a Segmentation for every input at its place, and return all files written."""
    written: list[Path] = []
    mask = np.zeros((32, 32), dtype=np.uint8)
    for _, base in plan_outputs(inputs, out, outputs):
        made = Segmentation(mask, ("a",), ((1, 2, 3),), np.zeros((32, 32, 3), np.uint8), np.ones((1, 32, 32)))
        written += made.save(base, outputs)
    return written


def test_files_are_flat_and_folders_keep_their_tree(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    single, *_ = touch(tmp_path, "far/away/x.jpg", "data/a.jpg", "data/one/a.jpg", "data/one/two/b.v2.png")
    plan = plan_outputs([single, data], out, ["mask"])
    assert plan == [
        (single, out / "x"),
        (data / "a.jpg", out / "a"),
        (data / "one/a.jpg", out / "one/a"),
        (data / "one/two/b.v2.png", out / "one/two/b.v2"),
    ]


def test_two_images_that_differ_in_their_ending_keep_it(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a.png", "in/b.jpg")
    expected = {"a.jpg": "a_jpg", "a.png": "a_png", "b.jpg": "b"}
    assert planned([tmp_path / "in"], tmp_path / "out") == expected


def test_an_image_named_as_anothers_overlay(tmp_path: Path) -> None:
    images = touch(tmp_path, "a.jpg", "a_overlay.jpg")
    assert planned(images, tmp_path / "out") == {"a.jpg": "a", "a_overlay.jpg": "a_overlay"}
    expected = {"a.jpg": "a_jpg", "a_overlay.jpg": "a_overlay_jpg"}
    assert planned(images, tmp_path / "out", ["mask", "overlay"]) == expected


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "a.PNG", "a.webp"),
        ("a.jpg", "a_overlay.jpg"),
        ("one/a.jpg", "two/a.jpg", "one/a.png"),
    ],
)
@pytest.mark.parametrize("outputs", [("mask",), ("mask", "overlay"), ALL])
def test_no_result_replaces_another(tmp_path: Path, names: tuple[str, ...], outputs: tuple[Output, ...]) -> None:
    touch(tmp_path / "in", *names)
    written = saved([tmp_path / "in"], tmp_path / "out", outputs)
    assert len(set(written)) == len(names) * len(outputs)
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == set(written)


@pytest.mark.parametrize("names", [("a.png", "a_overlay.png"), ("a.png.jpg", "a.jpg"), ("a.png.jpg", "a.bmp", "a.png")])
@pytest.mark.parametrize("outputs", [("mask",), ("mask", "overlay"), ALL])
def test_names_hard_to_tell_apart_work_or_are_an_error(
    tmp_path: Path, names: tuple[str, ...], outputs: tuple[Output, ...]
) -> None:
    touch(tmp_path / "in", *names)
    try:
        written = saved([tmp_path / "in"], tmp_path / "out", outputs)
    except ValueError as error:
        assert "would get the same result" in str(error)  # noqa: PT017
        assert not (tmp_path / "out").exists()
    else:
        assert len(set(written)) == len(names) * len(outputs)


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("a.png.jpg", "a.png"), ("a.jpg", "b.jpeg"), ("a.png",)])
def test_no_result_replaces_an_input(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = touch(tmp_path, *names)
    try:
        saved([tmp_path], tmp_path, ["mask", "overlay"])
    except ValueError as error:
        assert "would replace an input image; give another --out" in str(error)  # noqa: PT017
    assert {path.read_bytes() for path in images} == {b"an image"}


def test_a_result_that_would_replace_an_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.jpg")
    with pytest.raises(ValueError, match=r"a\.png: the result would replace an input image; give another --out"):
        plan_outputs([tmp_path], tmp_path, ["mask"])
    with pytest.raises(ValueError, match="would replace an input image"):
        plan_outputs([tmp_path / "a.png"], tmp_path / "below" / "..", ["mask"])
    touch(tmp_path, "c_overlay.png", "c.jpg")
    with pytest.raises(ValueError, match=r"c_overlay\.png: the result would replace an input"):
        plan_outputs([tmp_path / "c.jpg", tmp_path / "c_overlay.png"], tmp_path, ["overlay"])
    assert planned([tmp_path / "b.jpg"], tmp_path) == {"b.jpg": "b"}


def test_the_same_file_twice_is_segmented_once(tmp_path: Path) -> None:
    (image,) = touch(tmp_path, "a.jpg")
    assert planned([image, image], tmp_path / "out") == {"a.jpg": "a"}
    (tmp_path / "below").mkdir()
    plan = plan_outputs([image, tmp_path / "below" / ".." / "a.jpg", tmp_path], tmp_path / "out", ["mask"])
    assert [base for _, base in plan] == [tmp_path / "out/a"]


def test_two_files_of_the_same_name_from_two_folders(tmp_path: Path) -> None:
    first, second = touch(tmp_path, "one/sub/a.jpg", "two/sub/a.jpg")
    expected = f"{first} and {second} would get the same result below {tmp_path / 'out'}"
    with pytest.raises(ValueError, match=expected):
        plan_outputs([tmp_path / "one", tmp_path / "two"], tmp_path / "out", ["mask"])
    with pytest.raises(ValueError, match=expected):
        plan_outputs([first, second], tmp_path / "out", ["mask"])
    bases = [base for _, base in plan_outputs([tmp_path], tmp_path / "out", ["mask"])]
    assert bases == [tmp_path / "out/one/sub/a", tmp_path / "out/two/sub/a"]


def test_two_folders_with_a_folder_of_the_same_name_inside(tmp_path: Path) -> None:
    touch(tmp_path, "one/sub/a.jpg", "two/sub/b.jpg")
    plan = plan_outputs([tmp_path / "one", tmp_path / "two"], tmp_path / "out", ["mask"])
    assert [base for _, base in plan] == [tmp_path / "out/sub/a", tmp_path / "out/sub/b"]


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jpg: no such file or folder"):
        plan_outputs([tmp_path / "a.jpg"], tmp_path / "out", ["mask"])
    with pytest.raises(ValueError, match="no images in this folder"):
        plan_outputs([tmp_path], tmp_path / "out", ["mask"])


def test_results_of_an_earlier_run_among_the_inputs_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/out/a.png", "in/out/a_overlay.png", "in/other/b.jpg")
    assert planned([tmp_path / "in"], tmp_path / "in" / "out") == {"a.jpg": "a", "b.jpg": "other/b"}


def drawn(root: Path, number: int) -> list[Path]:
    """Images of different sizes."""
    rng = np.random.default_rng(0)
    root.mkdir()
    for k in range(number):
        pixels = rng.integers(0, 256, (40 + k, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{k:02}.png")
    return sorted(root.iterdir())


@pytest.mark.parametrize("number", [1, 2, 3, 9])
def test_files_are_segmented_as_one_by_one(tmp_path: Path, number: int) -> None:
    predictor = Predictor(build_model("mit_b0", num_classes=3, decoder_channels=32))
    files = drawn(tmp_path / "in", number)
    outcomes = list(segment_files(predictor, plan_outputs(files, tmp_path / "out", ("mask",)), ("mask",)))
    assert outcomes == [None] * number
    for path in files:
        written = np.asarray(Image.open(tmp_path / "out" / path.name))
        np.testing.assert_array_equal(written, predictor(path).mask)


def test_a_damaged_file_is_reported_in_its_place_and_the_others_are_segmented(tmp_path: Path) -> None:
    predictor = Predictor(build_model("mit_b0", num_classes=3, decoder_channels=32))
    files = drawn(tmp_path / "in", 6)
    files[3].write_bytes(files[3].read_bytes()[:60])
    outcomes = list(segment_files(predictor, plan_outputs(files, tmp_path / "out", ("mask",)), ("mask",)))
    assert [outcome is None for outcome in outcomes] == [True, True, True, False, True, True]
    assert "03.png" in str(outcomes[3])
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_a_full_disk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(build_model("mit_b0", num_classes=3, decoder_channels=32))
    files = drawn(tmp_path / "in", 4)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Segmentation, "save", full)
    with pytest.raises(OSError, match="No space left"):
        list(segment_files(predictor, plan_outputs(files, tmp_path / "out", ("mask",)), ("mask",)))
