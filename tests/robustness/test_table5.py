import re
from itertools import pairwise

import pytest

from robustness_results import made_up
from segformer.published import TABLE_5, TABLE_5_COLUMNS
from segformer.robustness.corruptions import CORRUPTIONS, Corruption, corruption_groups, corruption_names
from segformer.robustness.table5 import pack, robustness_text, table5, table5_row, text_block

CLASSES = ("ground", "disc", "square")


def test_the_papers_figures_are_complete() -> None:
    assert ("clean", *corruption_names()) == TABLE_5_COLUMNS
    assert len(TABLE_5) == 14
    for figures in TABLE_5.values():
        clean, *others = figures.values()
        assert len(others) == 16
        assert all(0 < figure < clean for figure in others)
    assert TABLE_5["SegFormer-B5"]["clean"] == 82.4
    gain = TABLE_5["SegFormer-B5"]["gaussian_noise"] / TABLE_5["ICNet"]["gaussian_noise"] - 1
    assert gain == pytest.approx(5.88, abs=0.005)  # Sec. 4.4: "up to 588% on Gaussian Noise"


def test_every_figure_of_the_paper_is_printed() -> None:
    text = table5()
    assert max(map(len, text.splitlines())) <= 80
    for method, figures in TABLE_5.items():
        halves = [line for line in text.splitlines() if line.startswith(method)]
        found = [float(figure) for line in halves for figure in re.findall(r"\d+\.\d", line)]
        clean, *others = figures.values()
        assert found == [clean, *others[:8], clean, *others[8:]]
    assert "segformer robustness MODEL --data cityscapes=ROOT" in text


def test_a_corruption_that_the_paper_does_not_have_is_a_column_of_dashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CORRUPTIONS, "rain", Corruption("weather", lambda image, rng: image, ((),) * 5, "Rain"))
    monkeypatch.setitem(CORRUPTIONS, "moire", Corruption("lens", lambda image, rng: image, ((),) * 5, "Moire"))
    text = table5()
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines() if line.startswith("SegFormer-B5")]
    assert lines[1][-2:] == ["49.9", "-"]
    assert lines[2][1:] == ["82.4", "-"]  # a third table, for the third pair of groups
    result = made_up(CLASSES)
    assert "rain" in robustness_text(result, "model")
    assert table5_row(result)["rain"] == pytest.approx(100 * result.miou("rain"))


def test_the_text_of_a_result_shows_group_after_group() -> None:
    result = made_up(CLASSES)
    text = robustness_text(result, "model on toytown")
    assert max(map(len, text.splitlines())) <= 80
    places = [text.index(f"\n{group.capitalize()} ") for group in corruption_groups()]
    assert all(a < b for a, b in pairwise(places))
    for name in corruption_names():
        assert name in text
        assert f"{100 * result.cells[name, 4].miou:.1f}" in text
        assert f"{100 * result.miou(name):.1f}" in text
    assert text.count("SegFormer-B5 *") == 4
    assert "* reported by the paper, on Cityscapes-C" in text
    assert "Blur" not in robustness_text(made_up(CLASSES, ("fog",)), "a part")


def test_a_row_of_the_table_is_in_percent() -> None:
    result = made_up(CLASSES, ("fog",))
    row = table5_row(result)
    assert row["clean"] == pytest.approx(100 * result.clean.miou)
    assert {name: figure for name, figure in row.items() if figure is not None} == {
        "clean": row["clean"], "fog": pytest.approx(100 * result.miou("fog")),
    }  # fmt: skip


def test_blocks_are_packed_into_tables_that_fit() -> None:
    labels = text_block("", {"": ["a", "b"]}, align="<")
    wide = text_block("T", {"x" * 40: ["1.0", "2.0"]})
    first, second = pack([labels], [wide, wide])
    assert first == second
    assert first.splitlines() == [f"   T{' ' * 39}".rstrip(), "   " + "x" * 40, "-  " + "-" * 40, *(
        f"{label}  {figure:>40}" for label, figure in (("a", "1.0"), ("b", "2.0"))
    )]  # fmt: skip
    assert len(pack([labels], [text_block("", {"n": ["1", "2"]})] * 3)) == 1
