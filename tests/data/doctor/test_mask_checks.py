import numpy as np
from PIL import Image, ImageDraw

from planted_faults import mask_of, remap
from segformer.data.doctor.diagnosis import diagnose


def test_a_smoothed_or_gray_color_mask_gets_another_fix(small_data):
    remap(mask_of(small_data), lambda mask: np.repeat(mask[:, :, None], 3, axis=2))
    (finding,) = diagnose(small_data).errors
    assert "channels are equal" in finding.fix
    picture = Image.new("RGB", (64, 48))
    ImageDraw.Draw(picture).ellipse((5, 5, 40, 40), (200, 10, 10))
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(mask_of(small_data))
    (finding,) = diagnose(small_data).errors
    assert "antialiasing" in finding.fix
