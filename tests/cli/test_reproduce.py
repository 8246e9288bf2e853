import pytest

from segformer.cli.reproduce import PRINTERS, reproduce
from segformer.errors import UserError
from segformer.paper.tables import COUNTED_TABLES


@pytest.fixture(params=[None, "80"], ids=["piped", "80 columns"])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if request.param:
        monkeypatch.setenv("COLUMNS", request.param)
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", COUNTED_TABLES)
def test_every_table_shows_the_paper_our_counts_and_commands(
    name: str, columns: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    table = COUNTED_TABLES[name]()
    reproduce(name)
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    for row in table.rows:
        for figure in (row.name, *row.paper):
            assert figure in words
        for ours, paper in zip(row.counted or (), row.paper, strict=False):
            if ours is not None and paper not in ("", "-"):
                assert f"{ours:.2f}" in words
    assert "segformer evaluate MODEL --data ade20k=ROOT" in words
    if name in ("table1a", "table2"):
        assert "segformer evaluate MODEL --data cityscapes=ROOT --protocol slide" in words
    if not columns:
        assert words.count("paper *") == sum(row.counted is None for row in table.rows)


@pytest.mark.parametrize("name", PRINTERS)
def test_every_table_fits_the_terminal(name: str, columns: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(name)
    printed = capsys.readouterr().out
    assert "…" not in printed
    if columns:
        assert max(map(len, printed.splitlines())) <= 80


def test_a_row_reads_paper_counted_difference(capsys: pytest.CaptureFixture[str]) -> None:
    reproduce("table1b")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first = lines.index(["C", "=", "256", "paper", "25.7", "24.7", "44.9"])
    assert lines[first + 1 : first + 3] == [["counted", "25.68", "24.76", "(a)"], ["difference", "-0.02", "+0.06"]]


def test_savings_show_the_share_that_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    reproduce("savings")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mit_b0", "8.4", "4.1", "51", "%"] in rows
    assert ["mit_b5", "1446.4", "1137.1", "21", "%"] in rows


def test_an_unknown_table_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'table2'"):
        reproduce("table_2")
