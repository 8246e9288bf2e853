import pytest

from segformer.cli.table import available_width, format_table, print_table

ROWS = [["road", "97.10", "98 %", "-"], ["sky", "5.00", "7 %", "1.2 .. 3.4"]]
HEADINGS = ["class", "IoU", "share", "interval\n95 %"]


def test_figures_are_aligned_at_the_right_and_names_at_the_left() -> None:
    assert format_table(HEADINGS, ROWS) == [
        "class    IoU  share    interval",
        "                           95 %",
        "road   97.10   98 %           -",
        "sky     5.00    7 %  1.2 .. 3.4",
    ]


def test_without_headings() -> None:
    assert format_table([], [["a", "text"], ["long", "more"]]) == ["a     text", "long  more"]


def test_a_long_last_column_is_wrapped_under_itself() -> None:
    lines = format_table(["name", "text"], [["a", "one two three four five six seven"], ["b", "x"]], width=30)
    assert lines == ["name  text", "a     one two three four five", "      six seven", "b     x"]
    assert len(format_table(["name", "text"], [["a", "one two three four five six seven"]])) == 2


def test_too_many_columns_are_broken_into_tables_that_repeat_the_label() -> None:
    lines = format_table(HEADINGS, ROWS, width=20)
    assert max(map(len, lines)) <= 20
    assert [line.split()[0] for line in lines if line.startswith(("class", "road", "sky"))] == 2 * [
        "class",
        "road",
        "sky",
    ]


def test_every_figure_survives_any_width() -> None:
    for width in range(1, 60):
        text = " ".join(format_table(HEADINGS, ROWS, width=width))
        assert all(cell in text for row in ROWS for cell in row)


def test_a_pipe_has_no_width_unless_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert available_width() is None
    monkeypatch.setenv("COLUMNS", "33")
    assert available_width() == 33


def test_a_title_and_an_indent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(["a"], [["1"]], title="Title", indent=2)
    assert capsys.readouterr().out == "Title\n  a\n  1\n"
