import numpy as np
import pytest
from PIL import Image

from planted_faults import (
    FAULTS,
    KINDS,
    WARNINGS,
    color_mask,
    image_of,
    mask_of,
    remap,
    truncate,
)
from segformer.data.doctor.diagnosis import diagnose


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_each_fault_is_found_alone_with_its_files(clean, plant):
    name = plant.__name__
    files = plant(clean)
    diagnosis = diagnose(clean)
    (finding,) = {finding.kind: finding for finding in diagnosis.findings}.values()
    assert finding.kind == KINDS.get(name, name)
    found = [file for finding in diagnosis.findings for file in finding.files]
    assert sorted(found) == sorted(map(str, files))
    assert diagnosis.ready == (name in WARNINGS)
    assert finding.problem
    assert finding.fix


def test_faults_do_not_hide_one_another(clean):
    truncate(image_of(clean, 0))
    mask_of(clean, 1).write_text("no image")
    remap(mask_of(clean, 3), lambda mask: mask[:, :-8])
    remap(mask_of(clean, 4), lambda mask: mask * 0 + 255)
    remap(mask_of(clean, 5), lambda mask: np.where(mask == 0, 77, mask))
    Image.open(image_of(clean, 6)).convert("L").save(image_of(clean, 6))
    color_mask(clean)
    mask_of(clean, 0, "val").unlink()
    expected = "unreadable_image unreadable_mask size_mismatch out_of_range color_mask image_without_mask"
    findings = diagnose(clean).findings
    assert {f.kind for f in findings if f.severity == "error"} == set(expected.split())
    assert {f.kind for f in findings if f.severity == "warning"} == {"ignored_mask", "mixed_channels"}
