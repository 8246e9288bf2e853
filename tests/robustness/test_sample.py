import hashlib

import numpy as np
import pytest

from corruption_images import Picture
from segformer.errors import UserError
from segformer.robustness import sample as module
from segformer.robustness.sample import CorruptedSample, digest_number


def test_a_corrupted_sample_is_the_same_each_time_and_its_mask_untouched() -> None:
    sample = Picture("one")
    image, mask = CorruptedSample(sample, "gaussian_noise", 2, 7).read()
    again, same_mask = CorruptedSample(sample, "gaussian_noise", 2, 7).read()
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, same_mask)
    np.testing.assert_array_equal(mask, sample.read()[1])
    assert CorruptedSample(sample, "gaussian_noise", 2, 7).name == "one"


def test_random_numbers_depend_on_seed_corruption_severity_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "corrupt", lambda image, name, severity, rng, frost: drawn.append(rng.random()))
    for corruption, severity, seed, name in (
        ("fog", 1, 0, "one"),
        ("fog", 1, 1, "one"),
        ("snow", 1, 0, "one"),
        ("fog", 2, 0, "one"),
        ("fog", 1, 0, "two"),
    ):
        CorruptedSample(Picture(name), corruption, severity, seed).read()
    assert len(set(drawn)) == 5


def test_texts_become_the_same_numbers_in_every_process() -> None:
    assert digest_number("fog") == int.from_bytes(hashlib.blake2b(b"fog", digest_size=8).digest(), "big")


def test_an_image_too_small_is_named() -> None:
    with pytest.raises(UserError, match="tiny: an image to corrupt must be at least 32 x 32, got 20 x 56"):
        CorruptedSample(Picture("tiny", (20, 56)), "fog", 1).read()
