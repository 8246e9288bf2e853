from collections.abc import Callable

import pytest

from segformer.paper.tables import (
    CITYSCAPES_CLASSES,
    COUNTED_TABLES,
    CROP,
    STREET,
    PaperTable,
    savings,
    stage_four,
    table1a,
    table1b,
    table1d,
    table2,
    table3,
)


def compared(table: PaperTable, heading: str) -> dict[str, tuple[float, float]]:
    """The paper's figure and ours in the column of a heading, by the row's name."""
    column = [name.replace("\n", " ") for name, _ in table.columns].index(heading)
    return {
        row.name: (float(row.paper[column]), row.counted[column])
        for row in table.rows
        if row.counted is not None and row.paper[column] not in ("", "-")
    }


def near(paper: float, ours: float) -> bool:
    return abs(ours - paper) <= max(0.3, 0.003 * paper)


@pytest.mark.parametrize(
    ("table", "heading", "num_rows"),
    [
        (table1a, "ADE20K Flops", 6),
        (table1a, "Cityscapes Flops, 150 classes", 6),
        (table1a, "COCO-Stuff Flops", 6),
        (table1b, "Flops", 5),
        (table1d, "Flops", 3),
        (table2, "ADE20K Flops", 3),
        (table3, "Decoder Flops", 2),
    ],
)
def test_counted_flops_meet_the_paper(table: Callable[[], PaperTable], heading: str, num_rows: int) -> None:
    figures = compared(table(), heading)
    assert len(figures) == num_rows
    assert [name for name, figure in figures.items() if not near(*figure)] == []


def test_table_2_mixes_heads_of_150_and_19_classes() -> None:
    wide, narrow = (compared(table2(), f"Cityscapes Flops, {k} classes") for k in (150, 19))
    fits = {name: (near(*wide[name]), near(*narrow[name])) for name in wide}
    assert fits == {
        "SegFormer @ 1024, MiT-B0": (True, False),
        "SegFormer @ 768, MiT-B0": (False, True),
        "SegFormer @ 640, MiT-B0": (False, True),
        "SegFormer @ 512, MiT-B0": (False, True),
        "SegFormer @ 1024, MiT-B4": (True, False),
        "SegFormer @ 1024, MiT-B5": (False, True),
    }


@pytest.mark.parametrize(
    ("table", "heading", "expected"),
    [
        (table1a, "ADE20K Flops", [8.4, 15.9, 62.3, 79.0, 95.6, 183.1]),
        (table1a, "Cityscapes Flops, 150 classes", [125.4, 243.5, 716.7, 962.4, 1239.9, 1459.6]),
        (table1a, "Cityscapes Flops, 19 classes", [121.0, 239.1, 703.5, 949.2, 1226.8, 1446.4]),
        (table1b, "Flops", [25.7, 39.7, 62.3, 93.6, 304.3]),
    ],
)
def test_counted_flops_to_one_decimal(table: Callable[[], PaperTable], heading: str, expected: list[float]) -> None:
    assert [round(ours, 1) for _, ours in compared(table(), heading).values()] == expected


def test_counted_parameters_to_two_decimals() -> None:
    ours = [round(ours, 2) for _, ours in compared(table1b(), "Params").values()]
    assert ours == [24.76, 25.85, 27.46, 29.60, 43.39]
    assert [round(figure, 2) for figure in stage_four()] == [22.22, 24.71]
    assert [round(ours, 1) for _, ours in compared(table3(), "Decoder params").values()] == [3.3, 3.3]


@pytest.mark.parametrize("table", COUNTED_TABLES.values(), ids=COUNTED_TABLES)
def test_a_column_is_either_counted_or_says_how_to_measure_it(table: Callable[[], PaperTable]) -> None:
    found = table()
    for heading, hint in found.columns:
        if "mIoU" in heading or "FPS" in heading:
            assert "reported by the paper" in hint
    for row in found.rows:
        assert len(row.paper) == len(found.columns)
        if row.counted is not None:
            assert [ours is None for ours in row.counted] == [hint is not None for _, hint in found.columns]


@pytest.mark.parametrize(("table", "missing"), [(table1a, 0), (table1b, 0), (table1d, 3), (table2, 15), (table3, 8)])
def test_rows_of_models_that_this_package_lacks(table: Callable[[], PaperTable], missing: int) -> None:
    assert sum(row.counted is None for row in table().rows) == missing


def test_savings_are_the_share_that_is_removed() -> None:
    crop = {saving.encoder: saving for saving in savings(CROP, 150)}
    street = {saving.encoder: saving for saving in savings(STREET, CITYSCAPES_CLASSES)}
    figures = [
        (round(saving.literal, 1), round(saving.computed, 1), round(100 * saving.share_removed))
        for saving in (crop["mit_b0"], street["mit_b0"], crop["mit_b5"], street["mit_b5"])
    ]
    assert figures == [(8.4, 4.1, 51), (121.0, 86.6, 28), (111.5, 72.9, 35), (1446.4, 1137.1, 21)]
