import json

import numpy as np
import pytest
from PIL import Image

from conftest import write_folder
from segformer.data.doctor.contents import Split, balance, balanced_weights, channel_statistics
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.doctor.facts import SampleFacts, channel_moments


def test_statistics_worked_by_hand(tmp_path):
    root = write_folder(tmp_path / "data", {"train": 2, "val": 2})
    mask = np.zeros((10, 20), dtype=np.uint8)
    mask[0] = 255
    mask[1, :16], mask[1, 16] = 1, 2  # 163, 16 and 1 of 180 pixels
    for path in root.glob("masks/*/*.png"):
        Image.fromarray(mask).save(path)
        image = root / "images" / path.parent.name / path.name
        Image.open(image).crop((0, 0, 20, 10)).save(image)
    diagnosis = diagnose(root)
    train = diagnosis.splits["train"]
    assert (train.num_images, train.sizes, train.channels) == (2, {(10, 20): 2}, {"RGB": 2})
    assert (train.class_pixels, train.ignored_pixels) == ((326, 32, 2), 40)
    assert diagnosis.rare == ("square",)
    raw = np.array([163, 16, 1]) ** -0.5
    assert diagnosis.class_weights == pytest.approx(raw / raw.mean(), abs=0.005)
    assert diagnosis.suggestions == ("--train.class-weights 0.18 0.56 2.26", "--data.rare-crop 0.5")
    pixels = np.concatenate([np.asarray(Image.open(p)).reshape(-1, 3) for p in root.glob("images/train/*.png")])
    assert diagnosis.mean == pytest.approx(pixels.mean(0))
    assert diagnosis.std == pytest.approx(pixels.std(0))
    assert not diagnosis.raw
    assert json.loads(json.dumps(diagnosis.to_json()))["ready"] is True


def test_a_split_as_json_has_plain_keys() -> None:
    split = Split(3, {(10, 20): 2, (8, 8): 1}, {"gray + alpha": 3}, (5, 7), 1)
    assert json.loads(json.dumps(split.to_json())) == {
        "num_images": 3,
        "sizes": [{"height": 10, "width": 20, "num_images": 2}, {"height": 8, "width": 8, "num_images": 1}],
        "channels": [{"kind": "gray + alpha", "num_images": 3}],
        "class_pixels": [5, 7],
        "ignored_pixels": 1,
    }
    assert split.shares() == (5 / 12, 7 / 12)
    assert Split(0, {}, {}, (), 0).shares() == ()


def test_weights_are_bounded_and_absent_classes_weigh_one() -> None:
    assert balanced_weights([1, 1, 0]) == (1.0, 1.0, 1.0)
    assert balanced_weights([10**9, 1])[0] == 0.1  # 6e-5 before the bound
    assert balance(None, ()) == (None, ())
    assert balance(Split(1, {}, {}, (0, 0), 5), ("a", "b")) == (None, ())
    assert balance(Split(1, {}, {}, (995, 5, 0), 0), ("a", "b", "c"))[1] == ("b",)


def test_statistics_need_equal_channels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    samples = [SampleFacts(split="train", **channel_moments(part)) for part in (pixels[:1], pixels[1:])]
    mean, std = channel_statistics(samples)
    assert mean == pytest.approx(pixels.reshape(-1, 3).mean(0))
    assert std == pytest.approx(pixels.reshape(-1, 3).std(0))
    other = SampleFacts(split="train", **channel_moments(pixels[:, :, :1]))
    assert channel_statistics([*samples, other]) == ((), ())
    assert channel_statistics([]) == ((), ())
