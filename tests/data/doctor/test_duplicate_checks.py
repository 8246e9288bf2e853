import numpy as np

from segformer.data.doctor.duplicate_checks import close_pairs
from segformer.data.doctor.facts import SampleFacts


def test_flat_images_of_different_brightness_are_not_near_duplicates():
    bits = np.zeros(64, dtype=bool)
    samples = [
        SampleFacts(split=split, image=split, bits=bits, thumbnail=np.full((16, 16), value, dtype=np.uint8))
        for split, value in (("train", 80), ("val", 120), ("test", 120))
    ]
    assert [(a.split, b.split) for a, b in close_pairs(samples)] == [("test", "val")]
