import numpy as np
import pytest
from PIL import Image

from planted_faults import image_of, mask_of, remap
from segformer.data.doctor.diagnosis import diagnose


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png", ".webp"])
def test_a_turned_photo_with_a_turned_mask_is_no_fault(small_data, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(image_of(small_data))
    image.load()
    image_of(small_data).unlink()
    image.save(small_data / "images" / "train" / f"002{suffix}", exif=exif)
    remap(mask_of(small_data), lambda mask: np.rot90(mask, -1))
    for cheap in (False, True):
        assert diagnose(small_data, cheap=cheap).findings == ()
