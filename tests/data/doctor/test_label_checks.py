from dataclasses import replace

import numpy as np

from planted_faults import remap_all
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.sources.toytown import open_source as open_toytown


def test_labels_of_a_drawn_sample_are_checked():
    source = open_toytown("")
    short = replace(source, classes=source.classes[:4], table=type(source.table).identity(4))
    short = replace(short, splits={name: samples[:2] for name, samples in short.splits.items()})
    (finding,) = diagnose(short).errors
    assert finding.kind == "out_of_range"
    assert finding.files[0] == "scene_000000"
    assert finding.fix == "correct the masks, or write 255 to ignore these pixels"  # there is no dataset.json


def test_labels_that_count_from_one_in_one_split_only(small_data):
    files = remap_all(small_data, lambda mask: np.where(mask == 255, 255, mask + 1), "val")
    (finding,) = diagnose(small_data).findings
    assert (finding.kind, finding.severity, finding.files) == ("off_by_one", "error", tuple(map(str, files)))
