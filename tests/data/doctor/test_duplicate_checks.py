from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import draw_pair
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.doctor.duplicate_checks import close_pairs, without_joined_splits
from segformer.data.doctor.facts import SampleFacts


def test_flat_images_of_different_brightness_are_not_near_duplicates():
    bits = np.zeros(64, dtype=bool)
    samples = [
        SampleFacts(split=split, image=split, bits=bits, thumbnail=np.full((16, 16), value, dtype=np.uint8))
        for split, value in (("train", 80), ("val", 120), ("test", 120))
    ]
    assert [(a.split, b.split) for a, b in close_pairs(samples)] == [("test", "val")]


@pytest.mark.parametrize("cheap", [False, True])
def test_a_file_in_two_splits_is_never_deleted(tmp_path: Path, cheap: bool) -> None:
    """The images b and copy are equal too, and one of them is in both lists."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name, seed in {"a": 1, "b": 2, "c": 3, "d": 4, "copy": 2}.items():
        for kind, pixels in zip(("images", "masks"), draw_pair(seed, (96, 128)), strict=True):
            Image.fromarray(pixels).save(tmp_path / kind / f"{name}.png")
    (tmp_path / "train.txt").write_text("a\na.png\ncopy\nb\nc\n")
    (tmp_path / "val.txt").write_text("b\ncopy\nd\n")
    findings = {finding.kind: finding for finding in diagnose(tmp_path, cheap=cheap).findings}
    shared = findings["in_two_splits"]
    assert shared.files == tuple(str(tmp_path / "images" / f"{name}.png") for name in ("copy", "b"))
    assert f"{tmp_path}/images/b.png in train and val; scores will be too good" in shared.problem
    assert shared.fix == "remove the line from one of the lists (or the file from one split)"
    assert set(findings) == {"in_two_splits"} | (set() if cheap else {"duplicate", "near_duplicate"})
    assert not any(finding.command for finding in findings.values())


def test_a_split_that_joins_two_others_repeats_no_file():
    names = {"train": "abc", "val": "de", "trainval": "abcde", "test": "af"}
    samples = [SampleFacts(split=split, image=image) for split, images in names.items() for image in images]
    assert {sample.split for sample in without_joined_splits(samples)} == {"train", "val", "test"}
