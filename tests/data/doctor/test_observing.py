import pytest

from planted_faults import FAULTS, KINDS, exif_half_turn, jpeg_saved_as_png, unreadable_image
from segformer.data.doctor.diagnosis import diagnose

CHEAP = (
    "unreadable_image unreadable_mask image_without_mask mask_without_image size_mismatch exif_rotation"
    " color_mask jpeg_mask mixed_channels"
)


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_the_cheap_look_finds_what_headers_tell_and_nothing_else(clean, plant):
    plant(clean)
    kinds = {finding.kind for finding in diagnose(clean, cheap=True).findings}
    name = KINDS.get(plant.__name__, plant.__name__)
    damaged = plant in (unreadable_image, exif_half_turn, jpeg_saved_as_png)  # only decoding shows it
    assert kinds == ({name} if name in CHEAP.split() and not damaged else set())
