from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segformer.config import DataConfig, Preprocessing
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import LabelTable
from segformer.data.loading import SegmentationDataset
from segformer.data.transforms import SegmentationTransform, stack
from segformer.training.loader import StepBatches, build_loader


def batches_of(num_samples: int, **changes: int) -> StepBatches:
    return StepBatches(num_samples, **({"steps": 25, "batch_size": 4, "seed": 0} | changes))


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
    batches = batches_of(num_samples)
    assert len(list(batches)) == len(batches) == 25
    assert all(len(batch) == 4 for batch in batches)
    items = sequence(batches)
    assert [epoch for epoch, _ in items] == [i // num_samples for i in range(100)]
    for epoch in range(100 // num_samples):
        assert sorted(index for e, index in items if e == epoch) == list(range(num_samples))
    partial = Counter(index for epoch, index in items if epoch == 100 // num_samples)
    assert all(0 <= index < num_samples and times == 1 for index, times in partial.items())


def test_a_batch_may_span_two_epochs() -> None:
    batches = list(batches_of(7))
    assert [epoch for epoch, _ in batches[1]] == [0, 0, 0, 1]


def test_a_data_set_smaller_than_the_batch() -> None:
    (first, *_) = batches_of(3, batch_size=8)
    assert [epoch for epoch, _ in first] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    items = sequence(batches_of(20))
    orders = [tuple(index for e, index in items if e == epoch) for epoch in range(5)]
    assert len(set(orders)) == 5
    assert tuple(range(20)) not in orders
    assert sequence(batches_of(20)) == items
    assert sequence(batches_of(20, seed=1)) != items


@pytest.mark.parametrize("start", [0, 1, 6, 24, 25])
def test_a_resumed_run_goes_on_with_the_same_batches(start: int) -> None:
    resumed = batches_of(7, start=start)
    assert list(resumed) == list(batches_of(7))[start:]
    assert len(resumed) == 25 - start


@pytest.mark.parametrize("world", [2, 4])
def test_the_devices_together_take_the_global_batch(world: int) -> None:
    shares = [list(batches_of(7, rank=rank, world_size=world)) for rank in range(world)]
    for step, batch in enumerate(batches_of(7)):
        parts = [share[step] for share in shares]
        assert {len(part) for part in parts} == {4 // world}
        assert sorted(item for part in parts for item in part) == sorted(batch)


def test_repeats_follow_one_another_and_go_on_in_the_next_batch() -> None:
    batches = list(batches_of(50, repeats=3))
    assert [number for number, _ in batches[0]] == [0, 1, 2, 0]
    assert batches[0][0][1] == batches[0][1][1] == batches[0][2][1] != batches[0][3][1]
    assert batches[0][3][1] == batches[1][0][1] == batches[1][1][1]


def loaded(num_samples: int, workers: int = 0, **changes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    batches = batches_of(num_samples, **({"steps": 6} | changes))
    return list(build_loader(noise(num_samples), workers=workers, batch_sampler=batches, collate_fn=stack))


def test_workers_give_the_same_tensors() -> None:
    alone, together = (loaded(5, workers) for workers in (0, 2))
    assert len(alone) == len(together) == 6
    for (images, masks), (other_images, other_masks) in zip(alone, together, strict=True):
        assert images.shape == (4, 3, 32, 48)
        assert images.dtype == torch.float32
        assert masks.shape == (4, 32, 48)
        assert masks.dtype == torch.uint8
        assert torch.equal(images, other_images)
        assert torch.equal(masks, other_masks)


def test_a_sample_is_another_in_every_epoch() -> None:
    images, _ = loaded(1, steps=1)[0]
    assert all(not torch.equal(images[0], other) for other in images[1:])


def test_a_resumed_loader_gives_the_same_tensors() -> None:
    full = loaded(5)
    resumed = loaded(5, start=4)
    assert len(resumed) == 2
    for (images, masks), (expected_images, expected_masks) in zip(resumed, full[4:], strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(masks, expected_masks)
