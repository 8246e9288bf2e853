import json
from dataclasses import replace

import pytest

from segformer.config import (
    DataConfig,
    EvalConfig,
    ModelCard,
    ModelConfig,
    Preprocessing,
    Recipe,
    TrainConfig,
    default_palette,
)
from segformer.errors import UserError
from segformer.json_config import from_json, to_json
from segformer.models.build import build_model, model_config
from segformer.published import MIT_SIZES
from segformer.recipes import RECIPES

RECIPE = RECIPES["toytown_b0"]


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
    with pytest.raises(UserError, match=r"model\.encoder must be one of mit_b0, .*; got 'mit_b9'; did you mean 'mit_b"):
        build_model(ModelConfig(encoder="mit_b9", decoder_channels=256), num_classes=2)
    with pytest.raises(UserError, match=r"model\.decoder must be one of all_mlp.*; got 'mlp'; did you mean 'all_mlp'"):
        build_model("mit_b0", "mlp", num_classes=2)


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
    assert list(default_palette(8)) == voc  # PASCAL VOC's colors of aeroplane ... cat


def test_first_colors_are_far_from_one_another() -> None:
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


def test_a_card_has_a_color_for_each_class() -> None:
    card = ModelCard.for_classes(model_config("mit_b0"), 3, Preprocessing())
    assert card.classes == ("class_0", "class_1", "class_2")
    assert from_json(ModelCard, json.loads(json.dumps(to_json(card)))) == card
    with pytest.raises(ValueError, match=r"palette must have one color per class \(2\), got 3"):
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
