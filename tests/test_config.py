import json
from dataclasses import replace
from typing import Any

import pytest

from segformer.config import (
    DataConfig,
    EvalConfig,
    ModelCard,
    ModelConfig,
    Preprocessing,
    Recipe,
    TrainConfig,
    check_choice,
    closest,
    default_palette,
    from_json,
    to_json,
)
from segformer.models.build import model_config
from segformer.published import MIT_SIZES
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
        ("model.encoder", "mit_b9", r"model\.encoder must be one of mit_b0, .*; got 'mit_b9'; did you mean 'mit_b"),
        ("train.steps", 0, r"train\.steps must be at least 1, got 0"),
        ("train.batch_size", -1, r"train\.batch_size must be at least 1, got -1"),
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


@pytest.mark.parametrize(
    ("encoder", "width"),
    [("mit_b0", 256), ("mit_b1", 256), ("mit_b2", 768), ("mit_b3", 768), ("mit_b4", 768), ("mit_b5", 768)],
)
def test_decoder_widths_of_the_paper(encoder: str, width: int) -> None:
    assert model_config(encoder).decoder_channels == width
    assert model_config(encoder, decoder_channels=512).decoder_channels == 512
    assert MIT_SIZES[encoder].decoder_channels == width


def test_an_unknown_encoder_or_option() -> None:
    with pytest.raises(ValueError, match=r"encoder must be one of .*; got 'mit-b2'; did you mean 'mit_b2'"):
        model_config("mit-b2")
    with pytest.raises(ValueError, match=r"unknown field 'model\.droppath'; did you mean 'drop_path'"):
        model_config("mit_b0", droppath=0.0)
    with pytest.raises(ValueError, match=r"model\.encoder must be one of"):
        ModelConfig(encoder="resnet", decoder_channels=256)


def test_palettes() -> None:
    for number in (1, 19, 150, 255):
        palette = default_palette(number)
        assert len(set(palette)) == len(palette) == number
        assert all(len(color) == 3 and all(0 <= value <= 255 for value in color) for color in palette)
        assert (0, 0, 0) not in palette
    assert default_palette(3) == default_palette(150)[:3]
    voc = [
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
        (64, 0, 0),
    ]
    assert list(default_palette(8)) == voc  # PASCAL VOC's colours of aeroplane ... cat


def test_first_colours_are_far_from_one_another() -> None:
    colors = default_palette(24)
    nearest = min(
        max(abs(a - b) for a, b in zip(one, other, strict=True)) for i, one in enumerate(colors) for other in colors[:i]
    )
    assert nearest >= 64


def test_statistics_of_other_channel_counts() -> None:
    assert Preprocessing.for_channels(3, short_side=64) == Preprocessing(short_side=64)
    five = Preprocessing.for_channels(5)
    assert five.mean == pytest.approx([(123.675 + 116.28 + 103.53) / 3] * 5)
    assert five.std == pytest.approx([(58.395 + 57.12 + 57.375) / 3] * 5)


def test_a_card_has_a_colour_for_each_class() -> None:
    card = ModelCard.for_classes(model_config("mit_b0"), 3, Preprocessing())
    assert card.classes == ("class_0", "class_1", "class_2")
    assert from_json(ModelCard, json.loads(json.dumps(to_json(card)))) == card
    with pytest.raises(ValueError, match="palette must have 2 colours, one a class, got 3"):
        replace(card, classes=("a", "b"))


def test_configs_are_frozen_and_take_keywords_only() -> None:
    with pytest.raises(AttributeError):
        RECIPE.train.lr = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        EvalConfig((1, 1))  # type: ignore[misc]
    assert hash(RECIPE) == hash(from_json(Recipe, to_json(RECIPE)))


def test_the_default_recipe_is_the_papers() -> None:
    train = TrainConfig(steps=160_000, batch_size=16, eval_every=16_000)
    assert (train.lr, train.decoder_lr_factor, train.weight_decay) == (6e-5, 10.0, 0.01)
    assert (train.warmup_steps, train.warmup_ratio, train.power, train.loss_average) == (1500, 1e-6, 1.0, "all")
    data = DataConfig()
    assert (data.resize, data.ratio, data.crop, data.max_class_share) == ((2048, 512), (0.5, 2.0), (512, 512), 0.75)
    pixels = Preprocessing()
    assert (pixels.resize, pixels.long_side, pixels.short_side, pixels.multiple) == ("fit", 2048, 512, 32)
    assert pixels.mean == (123.675, 116.28, 103.53)
    assert pixels.std == (58.395, 57.12, 57.375)
    assert not pixels.antialias


def test_the_closest_word() -> None:
    assert closest("overlays", ["mask", "overlay"]) == "; did you mean 'overlay'?"
    assert closest("b3", ["mit_b0", "mit_b3"]) == "; did you mean 'mit_b3'?"
    assert closest("xyz", ["mask"]) == ""
    check_choice("x", "mask", ["mask"])
    with pytest.raises(ValueError, match=r"^x must be one of a, b; got 'c'$"):
        check_choice("x", "c", ["a", "b"])
