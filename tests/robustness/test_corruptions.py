import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from corruption_images import flat, rng, scene
from segformer.errors import UserError
from segformer.robustness.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    Corruption,
    corrupt,
    corruption_groups,
    corruption_names,
)

NAMES = corruption_names()
EVERY = [(name, severity) for name in NAMES for severity in SEVERITIES]


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2))


def test_the_sixteen_of_table_5() -> None:
    columns = {
        "blur": ("motion_blur", "defocus_blur", "glass_blur", "gaussian_blur"),
        "noise": ("gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"),
        "digital": ("brightness", "contrast", "saturate", "jpeg_compression"),
        "weather": ("snow", "spatter", "fog", "frost"),
    }
    assert {group: names[:4] for group, names in corruption_groups().items() if group in columns} == columns
    assert sorted(NAMES) == sorted(CORRUPTIONS)
    assert {len(row.settings) for row in CORRUPTIONS.values()} == {5}
    for row in CORRUPTIONS.values():
        assert row.severities_in_mean == ((1, 2, 3) if row.group == "noise" else SEVERITIES)


@pytest.mark.parametrize(("name", "severity"), EVERY)
def test_a_function_of_image_and_generator(name: str, severity: int) -> None:
    image = scene()
    image.setflags(write=False)
    before = image.copy()
    first, again = (corrupt(image, name, severity, rng(5)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, before)
    assert (first != image).any()
    other = corrupt(image, name, severity, rng(6))
    assert (first != other).any() == CORRUPTIONS[name].is_random


@pytest.mark.parametrize("name", [name for name in NAMES if name != "frost"])
def test_more_is_farther_from_the_image(name: str) -> None:
    images = [scene(seed) for seed in (100_001, 100_003, 100_007)]
    averages = [
        np.mean([psnr(corrupt(image, name, severity, rng(k)), image) for k, image in enumerate(images)])
        for severity in SEVERITIES
    ]
    if name == "saturate":  # severities 1 and 2 take color away, 3 to 5 add it
        assert averages[0] > averages[1]
        assert averages[2] > averages[3] > averages[4]
    elif name == "glass_blur":  # 3 moves pixels in three rounds, 4 in two: the published order
        assert averages[0] > min(averages[1:])
        assert averages[0] > averages[4] + 1
    elif name == "spatter":  # water up to 3, then mud
        assert averages[0] > averages[1] > averages[2]
        assert averages[3] > averages[4]
    elif name == "fog":  # 3 and 4 differ in how rough the clouds are
        assert averages[0] > averages[1] > averages[2] > averages[4]
    elif name == "snow":  # 2 has small flakes and 3 large ones
        assert averages[0] > averages[1] > averages[3] > averages[4]
        assert averages[2] > averages[3]
    else:
        assert averages == sorted(averages, reverse=True), averages


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 32), (33, 100), (101, 32), (33, 1000)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    image = np.asarray(Image.fromarray(scene()).resize(size[::-1]))
    for severity in (1, 4, 5):
        assert corrupt(image, name, severity, rng()).shape == (*size, 3)


@pytest.mark.parametrize("name", NAMES)
def test_black_gray_and_white(name: str) -> None:
    for level in (0, 128, 255):
        for severity in (1, 3, 5):
            assert corrupt(flat(level, (32, 48)), name, severity, rng()).shape == (32, 48, 3)


@pytest.mark.parametrize("name", ["motion_blur", "glass_blur", "gaussian_blur", "contrast"])
def test_what_has_no_structure_keeps_its_level(name: str) -> None:
    for severity in SEVERITIES:
        assert (corrupt(flat(77, (40, 50)), name, severity, rng()) == 77).all()


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match=r"corruption must be one of .* did you mean 'motion_blur'"):
        corrupt(scene(), "motion_blurr", 1, rng())
    with pytest.raises(UserError, match="severity must be from 1 to 5, got 6"):
        corrupt(scene(), "fog", 6, rng())
    with pytest.raises(UserError, match="an image to corrupt must be at least 32 x 32, got 31 x 60"):
        corrupt(flat(0, (31, 60)), "fog", 1, rng())


def test_a_row_added_later_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """tests/cli/test_robustness.py takes such a row through the command, its page and Table 5."""

    def level(image: np.ndarray, generator: np.random.Generator, value: int, folder: Path | None = None) -> np.ndarray:
        return np.full_like(image, value / 255 if folder is None else 1)

    settings = ((10,), (20,), (30,), (40,), (50,))
    monkeypatch.setitem(CORRUPTIONS, "night", Corruption("digital", level, settings, "Night", from_photographs=level))
    assert corruption_groups()["digital"][-1] == "night"
    assert corruption_names().index("night") + 1 == corruption_names().index("snow")  # before the weather
    assert (corrupt(flat(200), "night", 2, rng()) == 20).all()
    assert (corrupt(flat(200), "night", 2, rng(), frost=tmp_path) == 255).all()


def test_the_table_can_be_read_without_torch_and_opencv() -> None:
    """The command's help lists the corruptions; NumPy is imported with them, which takes a tenth of a second."""
    code = "import sys, segformer.robustness.corruptions; print([m for m in ('torch', 'cv2') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_opencv_is_left_with_the_threads_that_it_had() -> None:
    before = cv2.getNumThreads()
    seen = []

    def note(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        seen.append(cv2.getNumThreads())
        return image

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CORRUPTIONS, "note", Corruption("digital", note, ((),) * 5, "Note"))
        corrupt(flat(0), "note", 1, rng())
    assert seen == [1]
    assert cv2.getNumThreads() == before
