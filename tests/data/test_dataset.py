import random
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from segformer.config import DataConfig, Preprocessing
from segformer.data.cache import CachedSample
from segformer.data.dataset import (
    DataSource,
    LabelTable,
    Pair,
    Sample,
    SegmentationDataset,
    Transform,
    channels_first,
    generator_of,
    seed_of,
)
from segformer.data.images import RGB, Decoding
from segformer.data.sources.toytown import Scene
from segformer.data.transforms import TrainTransform, resize_image, stack

Array = NDArray[Any]


@dataclass(frozen=True)
class Noise:
    """A drawn image with a mask of the classes 0-3."""

    seed: int

    @property
    def name(self) -> str:
        return f"noise_{self.seed}"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        rng = np.random.default_rng(self.seed)
        image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        return image, rng.integers(0, 4, (4, 6), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)


@dataclass(frozen=True)
class Labels:
    """A black image with a given mask."""

    name: str
    ids: tuple[int, ...]

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        return np.zeros((1, len(self.ids), 3), np.uint8), np.array([self.ids], np.uint16)


def transform() -> TrainTransform:
    return TrainTransform(DataConfig(resize=(60, 40), crop=(32, 32)), Preprocessing())


def dataset(transform: Transform | None, seed: int = 0) -> SegmentationDataset:
    return SegmentationDataset([Noise(k) for k in range(6)], LabelTable.identity(4), transform, seed)


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_ids_are_the_classes_and_255_is_ignored(dtype: type) -> None:
    classes = LabelTable.identity(3).apply(np.array([[0, 1], [2, 255]], dtype), "mask.png")
    assert classes.dtype == np.uint8
    assert classes.tolist() == [[0, 1], [2, 255]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ignore_index", [3, 200, 255])
def test_another_ignore_index_becomes_255(ignore_index: int, dtype: type) -> None:
    classes = LabelTable.identity(3, ignore_index).apply(np.array([[0, ignore_index, 2]], dtype), "mask.png")
    assert classes.tolist() == [[0, 255, 2]]


def test_an_ignore_index_beyond_8_bits() -> None:
    table = LabelTable.identity(3, 65_535)
    assert table.apply(np.array([[0, 65_535]], np.uint16), "mask.png").tolist() == [[0, 255]]
    assert table.apply(np.array([[0, 2]], np.uint8), "mask.png").tolist() == [[0, 2]]


def test_255_is_an_error_where_another_index_is_ignored() -> None:
    with pytest.raises(ValueError, match=r"expected labels 0-2 or 7 \(ignored\), got 255"):
        LabelTable.identity(3, 7).apply(np.array([[0, 255]], np.uint8), "mask.png")


def test_254_and_255_classes_fit_and_256_do_not() -> None:
    ids = np.arange(256, dtype=np.uint8)[None]
    assert LabelTable.identity(255).apply(ids, "mask.png").tolist() == ids.tolist()
    with pytest.raises(ValueError, match="at most 255 classes are supported, got 256"):
        LabelTable.identity(256)


def test_a_table_maps_many_ids_at_once() -> None:
    table = LabelTable(np.array([255, 0, 1, 0, -1], np.int16))  # 0 ignored; 1 and 3 the class 0; 2 the class 1; 4 none
    assert table.apply(np.array([[0, 1, 2, 3, 1]], np.uint8), "mask.png").tolist() == [[255, 0, 1, 0, 0]]
    with pytest.raises(ValueError, match="got 4 at 1 pixels"):
        table.apply(np.array([[0, 4]], np.uint8), "mask.png")


@pytest.mark.parametrize(
    ("ids", "dtype", "got"),
    [
        ([0, 3, 3, 1], np.uint8, "got 3 at 2 pixels"),
        ([4, 3, 254, 255], np.uint8, "got 3, 4, 254 at 3 pixels"),
        ([256, 0, 1, 2], np.uint16, "got 256 at 1 pixels"),
        ([65_535, 300, 300, 255], np.uint16, "got 300, 65535 at 3 pixels"),
        ([100_000, 0, 1, 2], np.int32, "got 100000 at 1 pixels"),
        ([-2, 0, 1, 2], np.int32, "got -2 at 1 pixels"),
        ([-1, 0, 1, 2], np.int32, "got -1 at 1 pixels"),
        ([-256, 0, 1, 2], np.int32, "got -256 at 1 pixels"),
        ([-1000, 0, 1, 2], np.int32, "got -1000 at 1 pixels"),
        ([9, 8, 7, 6, 5, 4, 3], np.uint8, "got 3, 4, 5, 6, 7 at 7 pixels"),
    ],
)
def test_other_ids_are_an_error_that_names_mask_range_and_pixels(ids: list[int], dtype: type, got: str) -> None:
    with pytest.raises(ValueError, match=r"masks/a\.png: expected labels 0-2 or 255 \(ignored\), ") as error:
        LabelTable.identity(3).apply(np.array([ids], dtype), Path("masks/a.png"))
    assert got in str(error.value)


def applied(table: LabelTable, mask: Array) -> list[list[int]] | str:
    """Classes, or the message."""
    try:
        classes = table.apply(mask, "mask.png")
    except ValueError as error:
        return str(error)
    assert classes.dtype == np.uint8
    assert not np.shares_memory(classes, mask)
    classes += np.uint8(0)  # it may be written to
    return classes.tolist()


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.integers(-1, 255), min_size=1, max_size=300),
    ids=st.lists(st.integers(0, 255), min_size=1, max_size=40),
)
def test_masks_of_8_bits_become_what_wider_ones_do(values: list[int], ids: list[int]) -> None:
    table, mask = LabelTable(np.array(values, np.int16)), np.array([ids], np.uint8)
    assert applied(table, mask) == applied(table, mask.astype(np.int32))
    known = mask[:, [i < len(values) and values[i] >= 0 for i in ids]]  # few drawn masks are right
    if known.size:
        assert applied(table, known) == applied(table, known.astype(np.int32))


@pytest.mark.parametrize("values", [range(256), range(255, -1, -1), [*range(255), -1], [-1, *range(255)], [255] * 256])
def test_a_table_of_each_8_bit_id(values: list[int]) -> None:
    table, mask = LabelTable(np.array(values, np.int16)), np.arange(256, dtype=np.uint8)[None]
    for part in (mask, mask[:, 1:], mask[:, :-1], mask[:, 100:150]):
        assert applied(table, part) == applied(table, part.astype(np.int32))


def test_a_mask_may_lie_in_memory_as_it_likes() -> None:
    ids, table = (
        np.random.default_rng(0).integers(0, 4, (20, 30), dtype=np.uint8),
        LabelTable.of({0: 2, 1: 0, 3: 255}, unlisted=1),
    )
    ids.setflags(write=False)
    for mask in (ids, ids.T, ids[::2, ::3], ids[::-1, ::-1], np.asfortranarray(ids)):
        assert applied(table, mask) == np.array([2, 0, 1, 255])[mask].tolist()


def save_pair(folder: Path, image_size: tuple[int, int], mask_size: tuple[int, int]) -> Pair:
    """Files of the (height, width) given."""
    pair = Pair("a", folder / "a.jpg", folder / "a.png")
    Image.new("RGB", image_size[::-1]).save(pair.image)
    Image.new("L", mask_size[::-1], 2).save(pair.mask)
    return pair


def test_a_pair_reads_image_and_mask(tmp_path: Path) -> None:
    image, mask = save_pair(tmp_path, (4, 6), (4, 6)).read()
    assert image.shape == (4, 6, 3)
    np.testing.assert_array_equal(mask, np.full((4, 6), 2))


@pytest.mark.parametrize("mask_size", [(6, 4), (4, 5), (2, 3)])
def test_a_mask_of_another_size_names_both_files_and_sizes(mask_size: tuple[int, int], tmp_path: Path) -> None:
    pair = save_pair(tmp_path, (4, 6), mask_size)
    with pytest.raises(ValueError, match="4 x 6") as error:
        pair.read()
    for part in (str(pair.image), str(pair.mask), f"got {mask_size[0]} x {mask_size[1]}"):
        assert part in str(error.value)


def test_an_unknown_split_names_the_known() -> None:
    source = DataSource("town", ("a",), ((1, 2, 3),), LabelTable.identity(1), {"train": [], "val": []})
    with pytest.raises(ValueError, match="town has no split 'test'; it has train, val"):
        source.samples("test")


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
        assert torch.equal(channels_first(lying), planes)
        assert torch.equal(resize_image(channels_first(lying), (sides[2], sides[3])), expected)


@dataclass(frozen=True)
class Raw:
    """Channels and a mask that are read-only and stay in memory."""

    channels: int
    name: str = "raw"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        zeros = np.frombuffer(ZEROS, np.uint8)
        return zeros[: 2400 * self.channels].reshape(40, 60, self.channels), zeros[:2400].reshape(40, 60)


ZEROS = bytes(2400 * 5)


def samples(folder: Path) -> dict[str, Sample]:
    pair = Pair("a", folder / "a.png", folder / "a_mask.png")
    image, mask = Noise(0).read()
    Image.fromarray(image).save(pair.image)
    Image.fromarray(mask).save(pair.mask)
    kept = CachedSample(pair, folder / "cache")
    kept.read()
    return {"file": pair, "cached": kept, "drawn": Scene(3), "grey": Raw(1), "rgb": Raw(3), "raw": Raw(5)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["file", "cached", "drawn", "grey", "rgb", "raw"])
def test_what_a_sample_keeps_is_never_written_to(name: str, tmp_path: Path) -> None:
    sample, table = samples(tmp_path)[name], LabelTable.identity(16)
    before = [part.copy() for part in sample.read()]
    channels = before[0].shape[2]
    preprocessing = Preprocessing(pixels="raw", mean=(9.0,) * channels, std=(7.0,) * channels)
    data = DataConfig(resize=(60, 40), ratio=(1.0, 1.0), crop=(40, 60), flip=0.0)
    for transform in (None, TrainTransform(data, preprocessing)):
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
