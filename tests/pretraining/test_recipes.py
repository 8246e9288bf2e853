import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segformer.errors import UserError
from segformer.json_config import from_json, to_json
from segformer.models.classifier import build_classifier
from segformer.pretraining.augmentation import RandomAugmentation
from segformer.pretraining.recipes import PRETRAIN_RECIPES, PretrainRecipe, find_pretrain_recipe

PAPER = PRETRAIN_RECIPES["imagenet_b0"]


@pytest.mark.parametrize("name", PRETRAIN_RECIPES)
def test_every_recipe_survives_its_json(name: str, tmp_path: Path) -> None:
    recipe = PRETRAIN_RECIPES[name]
    assert recipe.name == name
    assert recipe.description.endswith(".")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(to_json(recipe)))
    assert find_pretrain_recipe(str(path)) == recipe == find_pretrain_recipe(name)
    RandomAugmentation(recipe)
    with torch.device("meta"):
        model = build_classifier(recipe.encoder, drop_path=recipe.drop_path)
        assert model(torch.zeros(2, 3, recipe.size, recipe.size)).shape == (2, 1000)


def test_the_recipes_of_imagenet_are_pvtv2s() -> None:
    top1 = {"b0": "70.5", "b1": "78.7", "b2": "81.6", "b3": "83.1", "b4": "83.6", "b5": "83.8"}
    for size, figure in top1.items():
        recipe = PRETRAIN_RECIPES[f"imagenet_{size}"]
        assert (recipe.encoder, recipe.paper) == (f"mit_{size}", f"top-1 {figure} on val")
        assert recipe.drop_path == (0.3 if size in ("b3", "b4", "b5") else 0.1)
        assert recipe.lr == pytest.approx(1e-3)
        assert (recipe.epochs, recipe.size, recipe.weight_decay, recipe.repeats) == (300, 224, 0.05, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"warmup_epochs": 300}, "warmup_epochs must be 0 or more and below epochs 300, got 300"),
        ({"size": 16}, "size must be at least 32"),
        ({"erasing": 1.5}, "erasing must be a probability, 0-1, got 1.5"),
        ({"base_lr": math.nan}, "base_lr must be positive, got nan"),
        ({"randaug": "m9"}, "randaug must be like rand-m9-mstd0.5-inc1, or None, got m9"),
        ({"ema": 1.0}, "ema must be between 0 and 1, or None, got 1.0"),
        ({"clip_grad": 0.0}, "clip_grad must be positive or None"),
        ({"micro_batch_size": 0}, "micro_batch_size must be at least 1 or None"),
        ({"patience": 0}, "patience must be at least 1 or None"),
    ],
)
def test_what_no_recipe_can_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PAPER, **change)


def test_a_wrong_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'imagenet_b'; did you mean 'imagenet_b"):
        find_pretrain_recipe("imagenet_b")
    with pytest.raises(UserError, match=r"mine\.json: no such recipe"):
        find_pretrain_recipe(str(tmp_path / "mine.json"))
    (tmp_path / "mine.json").write_text(json.dumps(to_json(PAPER) | {"epoch": 3}))
    with pytest.raises(ValueError, match=r"mine\.json: unknown field 'epoch'; did you mean 'epochs'"):
        find_pretrain_recipe(str(tmp_path / "mine.json"))
    with pytest.raises(ValueError, match="missing field 'encoder'"):
        from_json(PretrainRecipe, {"name": "x", "description": "y"})
