from dataclasses import replace

import pytest

from segformer.config import DataConfig
from segformer.data.doctor.diagnosis import diagnose
from segformer.data.sources.toytown import open_source as open_toytown
from segformer.errors import UserError


def test_toytown_is_ready():
    source = open_toytown("")
    source = replace(source, splits={name: samples[:6] for name, samples in source.splits.items()})
    calls: list[tuple[int, int]] = []
    diagnosis = diagnose(source, progress=lambda done, total: calls.append((done, total)))
    assert diagnosis.ready
    assert {finding.kind for finding in diagnosis.findings} <= {"absent_class"}
    assert calls == [(k, 18) for k in range(1, 19)]
    assert diagnose("toytown", cheap=True).findings == ()


def test_a_missing_folder_and_the_splits_of_a_config(small_data, tmp_path):
    with pytest.raises(UserError, match="no data folder"):
        diagnose(tmp_path / "nowhere")
    config = DataConfig(root=str(small_data), val_split="test")
    (finding,) = diagnose(config, cheap=True).findings
    assert "no images in the split 'test'" in finding.problem
