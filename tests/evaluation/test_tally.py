from pathlib import Path

import torch

from segformer.evaluation.tally import Tally


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
