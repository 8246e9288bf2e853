import random
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from sample_kinds import Noise, samples, save_pair
from segformer.arrays import Array, to_tensor_view
from segformer.config import DataConfig, Preprocessing
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import LabelTable
from segformer.data.loading import SegmentationDataset, Transform, generator_of, seed_of
from segformer.data.transforms import SegmentationTransform, resize_image, stack


@dataclass(frozen=True)
class Labels:
    """A black image with a given mask."""

    name: str
    ids: tuple[int, ...]

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        return np.zeros((1, len(self.ids), 3), np.uint8), np.array([self.ids], np.uint16)


def transform() -> SegmentationTransform:
    return SegmentationTransform(DataConfig(resize=(60, 40), crop=(32, 32)), Preprocessing())


def dataset(transform: Transform | None, seed: int = 0) -> SegmentationDataset:
    return SegmentationDataset([Noise(k) for k in range(6)], LabelTable.identity(4), transform, seed)


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_without_a_transform_items_are_the_samples_as_tensors() -> None:
    items = dataset(None)
    assert len(items) == 6
    for index in range(6):
        image, mask = items[0, index]
        pixels, ids = Noise(index).read()
        assert image.dtype == mask.dtype == torch.uint8
        np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1))
        np.testing.assert_array_equal(mask.numpy(), ids)


def test_a_wrong_label_names_the_sample_or_its_mask(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="drawn_1: expected labels"):
        SegmentationDataset([Labels("drawn_1", (0, 9))], LabelTable.identity(2), None)[0, 0]
    pair = save_pair(tmp_path, (4, 6), (4, 6))
    with pytest.raises(ValueError, match=f"{pair.mask}: expected labels 0-1 .*got 2 at 24 pixels"):
        SegmentationDataset([pair], LabelTable.identity(2), None)[0, 0]


def test_the_label_table_comes_before_the_transform() -> None:
    seen: list[list[int]] = []

    def spy(image: Tensor, mask: Tensor, _: Generator) -> tuple[Tensor, Tensor]:
        seen.append(mask.flatten().tolist())
        return image, mask

    SegmentationDataset([Labels("drawn", (0, 1, 300))], LabelTable.identity(2, 300), spy)[0, 0]
    assert seen == [[0, 1, 255]]


def test_an_item_is_a_function_of_seed_epoch_and_index() -> None:
    items = dataset(transform())
    first = items[1, 2]
    assert same(items[1, 2], first)
    assert same(dataset(transform())[1, 2], first)
    assert not same(items[2, 2], first)
    assert not same(items[1, 3], first)
    assert not same(dataset(transform(), seed=1)[1, 2], first)


def test_the_same_sample_at_another_index_is_transformed_otherwise() -> None:
    def item(seed: int, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        return SegmentationDataset([Noise(0), Noise(0)], LabelTable.identity(4), transform(), seed)[epoch, index]

    items = [item(0, 0, 0), item(0, 0, 1), item(0, 1, 0), item(1, 0, 0)]
    assert not any(same(first, second) for first, second in combinations(items, 2))


def test_items_do_not_depend_on_the_global_generators() -> None:
    def seed_all(seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)

    items = dataset(transform())
    seed_all(1)
    first = items[0, 0]
    seed_all(2)
    state = torch.get_rng_state()
    assert same(items[0, 0], first)
    assert torch.equal(torch.get_rng_state(), state)


def test_items_do_not_depend_on_the_order_of_access() -> None:
    keys = [(epoch, index) for epoch in range(2) for index in range(6)]
    items = dataset(transform())
    forward = {key: items[key] for key in keys}
    backward = {key: items[key] for key in reversed(keys)}
    assert all(same(forward[key], backward[key]) for key in keys)


def test_items_do_not_depend_on_the_process() -> None:
    batches = [[(0, 0), (0, 5)], [(0, 3), (1, 3)], [(1, 1), (7, 2)], [(2, 0), (2, 4)]]

    def load(workers: int) -> list[tuple[Tensor, Tensor]]:
        return list(DataLoader(dataset(transform()), batch_sampler=batches, num_workers=workers, collate_fn=stack))

    alone, shared = load(0), load(2)
    assert len(alone) == len(shared) == 4
    assert all(same(first, second) for first, second in zip(alone, shared, strict=True))


def test_seeds_are_unrelated() -> None:
    seeds = [seed_of(seed, epoch, index) for seed in range(10) for epoch in range(10) for index in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    draws = torch.tensor([torch.rand((), generator=generator_of(0, 0, index)).item() for index in range(2000)])
    assert abs(draws.mean().item() - 0.5) < 0.03
    assert abs(np.corrcoef(draws[:-1].numpy(), draws[1:].numpy())[0, 1]) < 0.1


def test_keys_of_another_length_give_other_seeds() -> None:
    assert len({seed_of(3), seed_of(3, 0), seed_of(3, 0, 0)}) == 3  # an order (seed, epoch), an item (seed, epoch, 0)


@settings(max_examples=120, deadline=None)
@given(
    sides=st.tuples(*[st.integers(2, 80)] * 4),
    channels=st.sampled_from([1, 2, 3, 4, 6, 10]),
    dtype=st.sampled_from([np.uint8, np.float32]),
)
def test_an_image_resizes_as_its_planes_do_bit_for_bit(
    sides: tuple[int, int, int, int], channels: int, dtype: type
) -> None:
    pixels = (1000 * np.random.default_rng(0).standard_normal((*sides[:2], channels))).astype(dtype)
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    expected = resize_image(planes, (sides[2], sides[3]))
    for lying in (pixels, np.asfortranarray(pixels), pixels[::-1, ::-1].copy()[::-1, ::-1]):
        assert torch.equal(to_tensor_view(lying), planes)
        assert torch.equal(resize_image(to_tensor_view(lying), (sides[2], sides[3])), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["file", "cached", "drawn", "gray", "rgb", "raw"])
def test_what_a_sample_keeps_is_never_written_to(name: str, tmp_path: Path) -> None:
    sample, table = samples(tmp_path)[name], LabelTable.identity(16)
    before = [part.copy() for part in sample.read()]
    channels = before[0].shape[2]
    preprocessing = Preprocessing(pixels="raw", mean=(9.0,) * channels, std=(7.0,) * channels)
    data = DataConfig(resize=(60, 40), ratio=(1.0, 1.0), crop=(40, 60), flip=0.0)
    for transform in (None, SegmentationTransform(data, preprocessing)):
        for epoch in range(4):
            image, mask = SegmentationDataset([sample], table, transform)[epoch, 0]
            assert image.is_contiguous()
            image.fill_(1)
            mask.fill_(1)
            for part, kept in zip(sample.read(), before, strict=True):
                np.testing.assert_array_equal(part, kept)


def test_a_write_to_a_cached_array_does_not_reach_the_file(tmp_path: Path) -> None:
    kept = samples(tmp_path)["cached"]
    for part in kept.read():
        part[:] = 77
    for part, expected in zip(kept.read(), Noise(0).read(), strict=True):
        np.testing.assert_array_equal(part, expected)
