import json
from dataclasses import replace
from typing import Any

import pytest

from segformer.config import EvalConfig, Preprocessing, Recipe
from segformer.json_config import from_json, to_json
from segformer.recipes import RECIPES

RECIPE = RECIPES["toytown_b0"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    recipe = RECIPES[name]
    assert from_json(Recipe, json.loads(json.dumps(to_json(recipe)))) == recipe


def test_a_recipe_with_everything_changed_survives_json() -> None:
    recipe = replace(
        RECIPE,
        eval=EvalConfig(crop=(64, 48), stride=(3, 4), scales=(0.5, 2.0), flip=True),
        train=replace(RECIPE.train, class_weights=(1.0, 0.5), micro_batch_size=2, precision="bf16"),
        preprocessing=Preprocessing(resize="none", multiple=1, antialias=True, mean=(1.0,), std=(2.0,)),
    )
    assert from_json(Recipe, json.loads(json.dumps(to_json(recipe)))) == recipe


def test_a_field_with_a_default_may_be_left_out() -> None:
    values = to_json(RECIPE)
    del values["eval"], values["train"]["lr"]
    assert from_json(Recipe, values) == replace(RECIPE, train=replace(RECIPE.train, lr=6e-5))


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the JSON of a recipe in which one field, named with dots, is set."""
    values = json.loads(json.dumps(to_json(RECIPE)))
    *sections, name = path.split(".")
    target = values
    for section in sections:
        target = target[section]
    target[name] = value
    return values  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.lrr", 1e-3, r"unknown field 'train\.lrr'; did you mean 'lr'\?"),
        ("desciption", "x", r"unknown field 'desciption'; did you mean 'description'\?"),
        ("model.zzz", 1, r"unknown field 'model\.zzz'$"),
        ("train.steps", "400", r"train\.steps must be int, got '400'"),
        ("train.steps", 400.0, r"train\.steps must be int, got 400\.0"),
        ("train.steps", True, r"train\.steps must be int, got True"),
        ("train.steps", None, r"train\.steps must be int, got None"),
        ("train.lr", "1e-3", r"train\.lr must be float, got '1e-3'"),
        ("train.lr", True, r"train\.lr must be float, got True"),
        ("eval.flip", 1, r"eval\.flip must be bool, got 1"),
        ("model.encoder", 0, r"model\.encoder must be str, got 0"),
        ("data", "toytown", r"data must be an object, got 'toytown'"),
        ("data.crop", 160, r"data\.crop must be a list, got 160"),
        ("data.crop", [160], r"data\.crop must have 2 values, got 1"),
        ("data.crop", [160, 160, 3], r"data\.crop must have 2 values, got 3"),
        ("data.crop", [160, "160"], r"data\.crop\[1\] must be int, got '160'"),
        ("eval.crop", [64, 64.5], r"eval\.crop\[1\] must be int, got 64\.5"),
        ("eval.scales", [1.0, None], r"eval\.scales\[1\] must be float, got None"),
        (
            "train.precision",
            "fp61",
            r"train\.precision must be one of fp32, bf16, fp16; got 'fp61'; did you mean 'fp16'",
        ),
        ("train.precision", 16, r"train\.precision must be one of fp32, bf16, fp16; got"),
        ("preprocessing.resize", None, r"preprocessing\.resize must be one of fit, squash, none; got"),
        ("train.steps", 0, r"train\.steps must be at least 1, got 0"),
        ("train.batch_size", -1, r"train\.batch_size must be at least 1, got -1"),
        ("train.warmup_steps", -1, r"train\.warmup_steps must be 0 or more, got -1"),
        ("model.decoder_channels", 0, r"model\.decoder_channels must be at least 1, got 0"),
        ("model.drop_path", 1.0, r"model\.drop_path must be 0 or more and below 1, got 1\.0"),
        ("preprocessing.short_side", 0, r"preprocessing\.short_side must be at least 1, got 0"),
        ("preprocessing.std", [1, 0, 1], r"preprocessing\.std must be positive, got \(1\.0, 0\.0, 1\.0\)"),
        ("data.ratio", [2, 1], r"data\.ratio must be positive and ascending, got \(2\.0, 1\.0\)"),
        ("train.workers", -1, r"train\.workers must be 0 or more, got -1"),
        ("train.micro_batch_size", 0, r"train\.micro_batch_size must be at least 1 or None, got 0"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Recipe, changed(field, value))


@pytest.mark.parametrize("field", ["name", "model", "train.steps", "train.eval_every", "model.decoder_channels"])
def test_a_missing_field_is_named(field: str) -> None:
    values = to_json(RECIPE)
    *sections, name = field.split(".")
    del (values[sections[0]] if sections else values)[name]
    with pytest.raises(ValueError, match=f"missing field '{field}'"):
        from_json(Recipe, values)


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_what_is_no_object(values: Any) -> None:
    with pytest.raises(ValueError, match="Recipe must be an object"):
        from_json(Recipe, values)


def test_an_int_is_a_float() -> None:
    recipe = from_json(Recipe, changed("train.lr", 1))
    assert recipe.train.lr == 1.0
    assert type(recipe.train.lr) is float
    assert from_json(Recipe, changed("eval.scales", [1, 2])).eval.scales == (1.0, 2.0)


def test_none_is_off_where_it_may_be() -> None:
    assert from_json(Recipe, changed("eval.crop", None)).eval.crop is None
    assert from_json(Recipe, changed("eval.crop", [64, 48])).eval.crop == (64, 48)
