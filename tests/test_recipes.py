import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segformer.config import to_json
from segformer.data.catalog import DATASETS
from segformer.data.transforms import sizes_at_test
from segformer.models.segmenter import build_model
from segformer.recipes import RECIPES, find_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_model(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    with torch.device("meta"):
        model = build_model(recipe.model, num_classes=19, preprocessing=recipe.preprocessing)
        images = torch.zeros(2, recipe.model.in_channels, *recipe.data.crop)
        assert model(images).shape == (2, 19, recipe.data.crop[0] // 4, recipe.data.crop[1] // 4)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_consistent(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.data.dataset in DATASETS
    assert recipe.description.endswith(".")
    assert "\n" not in recipe.description
    assert recipe.train.warmup_steps < recipe.train.steps
    assert recipe.train.eval_every <= recipe.train.steps
    pixels = recipe.preprocessing
    assert recipe.data.resize == (pixels.long_side, pixels.short_side)  # trained around the size it is tested at
    assert min(sizes_at_test((360, 480), pixels)[-1]) >= 32


def test_names_are_words_for_a_folder() -> None:
    assert all(name.replace("_", "").isalnum() and name == name.lower() for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_by_name(name: str) -> None:
    assert find_recipe(name) is RECIPES[name]


def test_an_unknown_recipe() -> None:
    with pytest.raises(
        ValueError, match=r"RECIPE must be one of folder_b0, .*; got 'toytown'; did you mean 'toytown_b0'"
    ):
        find_recipe("toytown")


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    recipe = replace(RECIPES["folder_b0"], name="mine")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(to_json(recipe)))
    assert find_recipe(str(path)) == recipe


def test_a_missing_recipe_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mine\.json: no such recipe"):
        find_recipe(str(tmp_path / "mine.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected JSON"), ("[]", "must be an object"), ('{"nme": "x"}', "unknown field 'nme'; did you mean 'name'")],
)
def test_a_wrong_recipe_file_is_named_in_the_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.json: .*{message}"):
        find_recipe(str(tmp_path / "mine.json"))
