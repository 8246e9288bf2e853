import numpy as np
import pytest

from segformer.data.doctor.facts import SampleFacts, channel_moments, color_facts, image_facts, label_facts


def test_ids_and_their_pixels() -> None:
    mask = np.array([[3, 0, 3], [255, 0, 3]])
    for dtype in (np.uint8, np.uint16, np.int32):
        facts = label_facts(mask.astype(dtype))
        assert facts["mask_size"] == (2, 3)
        assert facts["ids"].tolist() == [0, 3, 255]
        assert facts["counts"].tolist() == [2, 3, 1]
    assert label_facts(mask > 0)["counts"].tolist() == [2, 4]
    assert label_facts(np.array([[-1, 300]], dtype=np.int32))["ids"].tolist() == [-1, 300]


def test_colors_by_frequency() -> None:
    pixels = np.array([[(1, 2, 3), (9, 0, 0), (1, 2, 3)]], dtype=np.uint8)
    assert color_facts(pixels) == {"num_colors": 2, "colors": ((1, 2, 3), (9, 0, 0))}
    many = np.arange(120, dtype=np.uint8).reshape(1, 40, 3)
    facts = color_facts(many)
    assert (facts["num_colors"], len(facts["colors"])) == (40, 32)


def test_moments_worked_by_hand() -> None:
    pixels = np.array([[[1.0, 10.0], [3.0, 20.0]]], dtype=np.float32)
    assert channel_moments(pixels)["moments"].tolist() == [[2, 2], [4, 30], [10, 500]]
    large = np.full((300, 300, 1), 255, dtype=np.uint8)  # squares beyond 32 bits
    assert channel_moments(large)["moments"][2] == pytest.approx([90_000 * 255.0**2])


def test_a_digest_is_of_the_pixels_and_a_hash_of_their_order() -> None:
    ramp = np.repeat(np.arange(0, 90, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(8, axis=0)
    facts, brighter = image_facts(ramp), image_facts(ramp + 60)
    assert facts["bits"].all()
    assert (facts["bits"] == brighter["bits"]).all()
    assert facts["digest"] != brighter["digest"]
    assert not image_facts(np.ascontiguousarray(ramp[:, ::-1]))["bits"].any()
    assert facts["digest"] != image_facts(ramp.reshape(4, 180, 3))["digest"]
    assert facts["thumbnail"].shape == (16, 16)


def test_files_are_those_that_exist() -> None:
    assert SampleFacts(split="train", image="a.jpg").files == ("a.jpg",)
    assert SampleFacts(split="train", mask="a.png").files == ("a.png",)
