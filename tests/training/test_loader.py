from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segformer.config import DataConfig, Preprocessing, TrainConfig
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import LabelTable
from segformer.data.loading import SegmentationDataset
from segformer.data.transforms import SegmentationTransform
from segformer.training.loader import StepBatches, build_loader

CONFIG = TrainConfig(steps=25, batch_size=4, eval_every=5, workers=0)


@dataclass(frozen=True)
class Noise:
    """An image and a mask drawn from an index."""

    index: int

    @property
    def name(self) -> str:
        return str(self.index)

    def read(self, decoding: Decoding = RGB) -> tuple[NDArray[Any], NDArray[Any]]:
        generator = np.random.default_rng(self.index)
        return generator.integers(0, 256, (40, 50, 3), np.uint8), generator.integers(0, 3, (40, 50), np.uint8)


def noise(number: int) -> SegmentationDataset:
    data = DataConfig(resize=(50, 40), crop=(32, 48))
    transform = SegmentationTransform(data, Preprocessing(long_side=50, short_side=40))
    return SegmentationDataset([Noise(i) for i in range(number)], LabelTable.identity(3), transform, seed=0)


def sequence(batches: StepBatches) -> list[tuple[int, int]]:
    return [item for batch in batches for item in batch]


@pytest.mark.parametrize("num_samples", [1, 3, 4, 7, 10, 64, 500])
def test_every_sample_once_an_epoch_and_no_gap_between_epochs(num_samples: int) -> None:
    batches = StepBatches(num_samples, CONFIG)
    assert len(list(batches)) == len(batches) == 25
    assert all(len(batch) == 4 for batch in batches)
    items = sequence(batches)
    assert [epoch for epoch, _ in items] == [i // num_samples for i in range(100)]
    for epoch in range(100 // num_samples):
        assert sorted(index for e, index in items if e == epoch) == list(range(num_samples))
    partial = Counter(index for epoch, index in items if epoch == 100 // num_samples)
    assert all(0 <= index < num_samples and times == 1 for index, times in partial.items())


def test_a_batch_may_span_two_epochs() -> None:
    batches = list(StepBatches(7, CONFIG))
    assert [epoch for epoch, _ in batches[1]] == [0, 0, 0, 1]


def test_a_data_set_smaller_than_the_batch() -> None:
    (first, *_) = StepBatches(3, replace(CONFIG, batch_size=8))
    assert [epoch for epoch, _ in first] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    items = sequence(StepBatches(20, CONFIG))
    orders = [tuple(index for e, index in items if e == epoch) for epoch in range(5)]
    assert len(set(orders)) == 5
    assert tuple(range(20)) not in orders
    assert sequence(StepBatches(20, CONFIG)) == items
    assert sequence(StepBatches(20, replace(CONFIG, seed=1))) != items


@pytest.mark.parametrize("start", [0, 1, 6, 24, 25])
def test_a_resumed_run_goes_on_with_the_same_batches(start: int) -> None:
    resumed = StepBatches(7, CONFIG, start=start)
    assert list(resumed) == list(StepBatches(7, CONFIG))[start:]
    assert len(resumed) == 25 - start


@pytest.mark.parametrize("world", [2, 4])
def test_the_devices_together_take_the_global_batch(world: int) -> None:
    shares = [list(StepBatches(7, CONFIG, rank=rank, world=world)) for rank in range(world)]
    for step, batch in enumerate(StepBatches(7, CONFIG)):
        parts = [share[step] for share in shares]
        assert {len(part) for part in parts} == {4 // world}
        assert sorted(item for part in parts for item in part) == sorted(batch)


def test_a_batch_that_can_not_be_shared() -> None:
    with pytest.raises(ValueError, match=r"train\.batch_size must be a multiple of the 3 devices, got 4"):
        StepBatches(7, CONFIG, world=3)


def test_workers_give_the_same_tensors() -> None:
    config = replace(CONFIG, steps=6)
    alone, together = (
        list(build_loader(noise(5), StepBatches(5, replace(config, workers=workers)))) for workers in (0, 2)
    )
    assert len(alone) == len(together) == 6
    for (images, masks), (other_images, other_masks) in zip(alone, together, strict=True):
        assert images.shape == (4, 3, 32, 48)
        assert images.dtype == torch.float32
        assert masks.shape == (4, 32, 48)
        assert masks.dtype == torch.uint8
        assert torch.equal(images, other_images)
        assert torch.equal(masks, other_masks)


def test_a_sample_is_another_in_every_epoch() -> None:
    batches = list(build_loader(noise(1), StepBatches(1, replace(CONFIG, steps=1))))
    images, _ = batches[0]
    assert all(not torch.equal(images[0], other) for other in images[1:])


def test_a_resumed_loader_gives_the_same_tensors() -> None:
    config = replace(CONFIG, steps=6)
    full = list(build_loader(noise(5), StepBatches(5, config)))
    resumed = list(build_loader(noise(5), StepBatches(5, config, start=4)))
    assert len(resumed) == 2
    for (images, masks), (expected_images, expected_masks) in zip(resumed, full[4:], strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(masks, expected_masks)
