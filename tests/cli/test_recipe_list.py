from dataclasses import replace

import pytest

from segformer.cli.recipe_list import OTHERS, grouped, print_recipes, recipe_row
from segformer.recipes import GROUPS, RECIPES


def test_every_recipe_is_listed_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_recipes()
    lines = capsys.readouterr().out.splitlines()
    for name in RECIPES:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert f"{RECIPES[name].train.steps:,}" in line
    assert all(group in lines for group in GROUPS)


def test_the_list_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_recipes()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines.index("Data sets (--data NAME=FOLDER)") < 100  # the recipes before it


def test_a_recipe_without_a_group_is_listed_last() -> None:
    recipes = RECIPES | {"planted": replace(RECIPES["folder_b0"], name="planted")}
    found = grouped(GROUPS, recipes)
    assert [name for names in found.values() for name in names] == [*RECIPES, "planted"]
    assert list(found)[-1] == OTHERS


def test_a_row_shows_the_papers_result_or_what_the_recipe_is_for() -> None:
    assert recipe_row(RECIPES["ade20k_b0"]) == [
        "ade20k_b0",
        "160,000",
        "16",
        "512x512",
        "mIoU 37.4, 38.0 multi-scale",
    ]
    assert recipe_row(RECIPES["camvid_b0_quick"])[-1].startswith("CamVid (11 classes) at half size")
    assert recipe_row(RECIPES["mapillary_b5"])[-1].startswith("Mapillary Vistas")
