from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segformer.data.label_table import LabelTable

Array = NDArray[Any]


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
        LabelTable.from_mapping({0: 2, 1: 0, 3: 255}, unlisted=1),
    )
    ids.setflags(write=False)
    for mask in (ids, ids.T, ids[::2, ::3], ids[::-1, ::-1], np.asfortranarray(ids)):
        assert applied(table, mask) == np.array([2, 0, 1, 255])[mask].tolist()
