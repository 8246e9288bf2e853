from pathlib import Path

import numpy as np
import pytest
import torch

from segformer.evaluation.statistics import iou_of
from segformer.evaluation.tally import Tally, group_names, sampled_pixels


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_two_thousand_images_take_no_more_memory_than_two_hundred() -> None:
    torch.manual_seed(0)
    prediction = torch.randint(0, 150, (32, 43)).repeat_interleave(16, 0).repeat_interleave(16, 1)
    label = torch.roll(prediction, 5, dims=0).to(torch.uint8)
    tally = Tally.empty(2000, 150)
    for array in tally.to_arrays().values():
        array.fill(0)  # the pages that it has from the beginning, by design: 15 MB
    for k in range(200):
        tally.add(k, prediction, label)
    before = resident()
    for k in range(200, 2000):
        tally.add(k, prediction, label)
    assert resident() - before < 4 * 2**20
    assert tally.confusion.sum() == 2000 * prediction.numel()


def test_counts_are_additive() -> None:
    rng = np.random.default_rng(0)
    maps = [torch.from_numpy(rng.integers(0, 4, (40, 50), dtype=np.uint8)) for _ in range(6)]
    maps[1][:5] = 255
    whole, parts = Tally.empty(3, 4), [Tally.empty(3, 4) for _ in range(3)]
    for k in range(3):
        for tally in (whole, parts[k]):
            tally.add(k, maps[k].clamp(max=3).long(), maps[k + 3])
    for name, array in whole.to_arrays().items():
        np.testing.assert_array_equal(sum(part.to_arrays()[name] for part in parts), array)
    assert whole.images[:, 1].sum() == whole.confusion.sum()
    np.testing.assert_array_equal(
        iou_of(whole.images.sum(axis=0)),
        iou_of(np.stack([np.diag(whole.confusion), whole.confusion.sum(1), whole.confusion.sum(0)])),
    )


def test_ignored_pixels_count_nowhere() -> None:
    label, prediction = torch.zeros(40, 40, dtype=torch.uint8), torch.zeros(40, 40, dtype=torch.int64)
    label[:, 20:] = 255
    prediction[:, 20:] = 1
    tally = Tally.empty(1, 2)
    tally.add(0, prediction, label)
    assert tally.confusion.tolist() == [[800, 0], [0, 0]]
    assert tally.borders[0, 0].tolist() == tally.borders[0, 1].tolist() == tally.borders[0, 2].tolist()
    assert tally.borders[0, 2, 1] == 0


def test_pixels_for_the_calibration_are_labeled_ones() -> None:
    label = torch.full((50, 60), 255, dtype=torch.uint8)
    label[7, 5:9] = 1
    drawn = sampled_pixels(label, 10, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {7 * 60 + k for k in range(5, 9)}
    assert len(sampled_pixels(torch.zeros(9, 9), 10**6, torch.Generator())) == 64
    assert len(sampled_pixels(torch.full((9, 9), 255), 3, torch.Generator())) == 0


def test_sequences_are_told_apart_by_the_start_of_a_name() -> None:
    names = ["bonn/bonn_000001_000019", "bonn/bonn_000001_000020", "bonn/bonn_000002_000019", "x"]
    groups = group_names(names, r"[^/]+/[^_/]+_\d+")
    assert groups == ["bonn/bonn_000001", "bonn/bonn_000001", "bonn/bonn_000002", "x"]
    assert group_names(names, "") == names
    with pytest.raises(ValueError, match=r"sequence must be a regular expression, got '\['"):
        group_names(names, "[")
