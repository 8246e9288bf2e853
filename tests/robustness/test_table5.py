import pytest

from robustness_results import made_up
from segformer.published import TABLE_5, TABLE_5_COLUMNS
from segformer.robustness.corruptions import CORRUPTIONS, Corruption, corruption_groups, corruption_names
from segformer.robustness.result import Robustness
from segformer.robustness.table5 import group_table, table5, table5_row

CLASSES = ("ground", "disc", "square")


def test_the_papers_figures_are_complete() -> None:
    assert ("clean", *(name for name in corruption_names() if name in TABLE_5_COLUMNS)) == TABLE_5_COLUMNS
    assert len(TABLE_5) == 14
    for figures in TABLE_5.values():
        clean, *others = figures.values()
        assert len(others) == 16
        assert all(0 < figure < clean for figure in others)
    assert TABLE_5["SegFormer-B5"]["clean"] == 82.4
    gain = TABLE_5["SegFormer-B5"]["gaussian_noise"] / TABLE_5["ICNet"]["gaussian_noise"] - 1
    assert gain == pytest.approx(5.88, abs=0.005)  # Sec. 4.4: "up to 588% on Gaussian Noise"


def test_every_figure_of_the_paper_is_there() -> None:
    table = table5()
    assert [heading.split("\n")[-1] for heading in table.headings[:4]] == ["", "Clean", "Motion", "Defoc"]
    assert [heading.split("\n")[0] for heading in table.headings if heading[0:1].isalpha()] == [
        group.capitalize() for group in corruption_groups()
    ]
    for row, (method, figures) in zip(table.rows, TABLE_5.items(), strict=True):
        assert row[0] == method
        assert [float(text) for text in row[1:] if text != "-"] == list(figures.values())


def test_a_corruption_that_the_paper_does_not_have_is_a_column_of_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORRUPTIONS, "rain", Corruption("weather", lambda image, rng: image, ((),) * 5, "Rain"))
    monkeypatch.setitem(CORRUPTIONS, "moire", Corruption("lens", lambda image, rng: image, ((),) * 5, "Moire"))
    table = table5()
    assert table.headings[-2:] == ["\nRain", "Lens\nMoire"]
    assert table.rows[-1][-2:] == ["-", "-"]
    result = made_up(CLASSES)
    assert group_table(result, "lens").headings == ["Lens", "moire"]
    assert table5_row(result)["rain"] == pytest.approx(100 * result.miou("rain"))


def test_the_table_of_a_group_by_hand() -> None:
    result = made_up(CLASSES, ("fog", "shot_noise"), (1, 5))
    table = group_table(result, "noise")
    mild, hard = (100 * result.cells["shot_noise", severity].miou for severity in (1, 5))
    assert table.headings == ["Noise", "shot_noise"]
    assert table.rows == [
        ["severity 1", f"{mild:.1f}"],
        ["severity 5", f"{hard:.1f}"],
        ["mean", f"{mild:.1f}"],  # without severity 5
        ["% of clean", f"{mild / result.clean.miou:.1f}"],
        ["SegFormer-B5 *", "52.3"],
    ]


def test_a_cell_that_was_not_measured_is_a_dash() -> None:
    result = made_up(CLASSES, ("fog", "snow"), (1,))
    cells = {**result.cells, ("snow", 2): result.cells["snow", 1]}
    table = group_table(Robustness(result.clean, cells, {}), "weather")
    assert table.headings == ["Weather", "snow", "fog"]
    assert table.rows[1][2] == "-"


def test_a_row_of_the_table_is_in_percent() -> None:
    result = made_up(CLASSES, ("fog",))
    row = table5_row(result)
    assert row["clean"] == pytest.approx(100 * result.clean.miou)
    assert {name: figure for name, figure in row.items() if figure is not None} == {
        "clean": row["clean"], "fog": pytest.approx(100 * result.miou("fog")),
    }  # fmt: skip
