import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segformer.checkpoints.model_folder import load
from segformer.config import EvalConfig, Recipe
from segformer.data.sources import SOURCES, cityscapes, toytown
from segformer.data.sources.catalog import open_data
from segformer.data.transforms import sizes_at_test
from segformer.errors import UserError
from segformer.json_config import from_json, to_json
from segformer.models.build import build_model
from segformer.recipes import GROUPS, RECIPES, find_recipe
from segformer.training.run_folder import read_metrics
from segformer.training.segmentation import train
from small_runs import QUIET


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_model(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    with torch.device("meta"):
        model = build_model(recipe.model, num_classes=19, preprocessing=recipe.preprocessing)
        images = torch.zeros(2, recipe.model.in_channels, *recipe.data.crop)
        assert model(images).shape == (2, 19, recipe.data.crop[0] // 4, recipe.data.crop[1] // 4)


def write_tree(root: Path, dataset: str) -> Path:
    """Streets of toytown, 64 x 96, in the official layout of a data set and with raw ids of its own."""
    places: dict[str, list[tuple[str, str]]] = {
        "folder": [(f"images/{s}/{{}}.jpg", f"masks/{s}/{{}}.png") for s in ("train", "val")],
        "ade20k": [(f"images/{s}/{{}}.jpg", f"annotations/{s}/{{}}.png") for s in ("training", "validation")],
        "cityscapes": [
            (f"leftImg8bit/{s}/town/town_{{}}_leftImg8bit.png", f"gtFine/{s}/town/town_{{}}_gtFine_labelIds.png")
            for s in ("train", "val")
        ],
        "coco_stuff": [(f"images/{s}/{{}}.jpg", f"annotations/{s}/{{}}.png") for s in ("train2017", "val2017")],
        "mapillary_as_cityscapes": [
            (f"{s}/images/{{}}.jpg", f"{s}/labels/{{}}.png") for s in ("training", "validation")
        ],
    }
    raw_ids = {"cityscapes": cityscapes.CLASS_IDS[:8], "mapillary_as_cityscapes": (27, 17, 13, 15, 30, 55, 19, 50)}
    for split, (image_place, mask_place) in zip(("train", "val"), places[dataset], strict=True):
        for k, scene in enumerate(open_data("toytown").samples(split)[: 2 if split == "train" else 1]):
            image, mask = scene.read()
            raw = np.array(raw_ids.get(dataset, range(1, 9)), dtype=np.uint8)[mask]
            for place, picture in ((image_place, image), (mask_place, raw)):
                path = root / place.format(k)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).resize((96, 64), Image.Resampling.NEAREST).save(path)
    return root


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_two_steps_on_a_tree_of_its_data_set(name: str, tmp_path: Path) -> None:
    """At a small size, since the paper's take a GPU; all else is the recipe's, its JSON in between."""
    recipe = from_json(Recipe, json.loads(json.dumps(to_json(RECIPES[name]))))
    assert recipe == RECIPES[name]
    dataset = recipe.data.dataset
    root = "" if dataset == "toytown" else str(write_tree(tmp_path / "data", dataset))
    weights = recipe.train.class_weights
    recipe = replace(
        recipe,
        data=replace(recipe.data, root=root, resize=(96, 64), crop=(64, 64)),
        preprocessing=replace(recipe.preprocessing, long_side=96, short_side=64),
        train=replace(
            recipe.train,
            steps=2,
            batch_size=2,
            workers=0,
            log_every=1,
            init_from=None,
            class_weights=weights and (weights * 2)[: 8 if dataset == "toytown" else 9],
        ),
        eval=replace(recipe.eval, crop=recipe.eval.crop and (64, 64), stride=recipe.eval.stride and (48, 48)),
    )
    if dataset == "toytown":
        recipe = replace(recipe, data=replace(recipe.data, val_split="tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(toytown.SPLITS, "tiny", range(3, 4))
        result = train(recipe, tmp_path / "run", reporter=QUIET)
    assert result.step == 2
    lines = read_metrics(tmp_path / "run")
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)
    assert load(tmp_path / "run" / "best").card.model == recipe.model


def test_the_papers_recipes_are_those_of_the_released_configurations() -> None:
    for name, steps, batch, crop, resize in (
        ("ade20k_b4", 160_000, 16, (512, 512), (2048, 512)),
        ("ade20k_b5", 160_000, 16, (640, 640), (2048, 640)),
        ("cityscapes_b3", 160_000, 8, (1024, 1024), (2048, 1024)),
        ("cityscapes_b0_512x1024", 160_000, 8, (512, 1024), (1024, 512)),
        ("cityscapes_b0_640x1280", 160_000, 8, (640, 1280), (1280, 640)),
        ("cityscapes_b0_768x768", 160_000, 8, (768, 768), (1536, 768)),
        ("coco_stuff_b5", 80_000, 16, (512, 512), (2048, 512)),
        ("mapillary_b5", 160_000, 8, (1024, 1024), (2048, 1024)),
        ("ade20k_b2_c256_40k", 40_000, 16, (512, 512), (2048, 512)),
    ):
        recipe = RECIPES[name]
        config, data = recipe.train, recipe.data
        assert (config.steps, config.batch_size, data.crop, data.resize) == (steps, batch, crop, resize), name
        assert (config.lr, config.decoder_lr_factor, config.weight_decay) == (6e-5, 10.0, 0.01)
        assert (config.warmup_steps, config.warmup_ratio, config.power) == (1500, 1e-6, 1.0)
        assert (config.loss, config.loss_average, config.class_weights) == ("cross_entropy", "all", None)
        assert data.ratio == ((0.5, 1.0) if "mapillary" in name else (0.5, 2.0))
        assert "mIoU" in recipe.paper or "Table 4" in recipe.paper
    assert RECIPES["cityscapes_b0"].eval == EvalConfig(crop=(1024, 1024), stride=(768, 768))
    assert RECIPES["cityscapes_b0_512x1024"].eval == EvalConfig()
    assert RECIPES["cityscapes_b5_from_mapillary"].data.train_split == "trainval"
    assert RECIPES["ade20k_b2_c2048_40k"].model.decoder_channels == 2048


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_consistent(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.data.dataset in SOURCES
    assert recipe.description.endswith(".")
    assert "\n" not in recipe.description
    assert recipe.train.warmup_steps < recipe.train.steps
    assert recipe.train.steps % recipe.train.eval_every == 0
    assert recipe.train.eval_every <= recipe.train.steps
    pixels = recipe.preprocessing
    assert recipe.data.resize == (pixels.long_side, pixels.short_side)  # trained around the size it is tested at
    assert min(sizes_at_test((360, 480), pixels)[-1]) >= 32


def test_every_recipe_is_in_one_group_of_the_list() -> None:
    assert [name for names in GROUPS.values() for name in names] == list(RECIPES)


def test_figures_are_those_that_the_paper_prints() -> None:
    """The recipe.json of an old run holds these words, and --resume compares them."""
    assert RECIPES["ade20k_b0"].paper == "mIoU 37.4, 38.0 multi-scale (Table 1a); 8 x V100"
    assert RECIPES["cityscapes_b5"].paper == "mIoU 82.4, 84.0 multi-scale (Table 1a); 8 x V100"
    assert RECIPES["coco_stuff_b3"].paper == "mIoU 45.5 (Table 1a); 8 x V100"
    assert RECIPES["cityscapes_b0_640x1280"].paper == "mIoU 73.7 (Table 2); 8 x V100"
    assert RECIPES["ade20k_b2_c2048_40k"].paper == "mIoU 45.6 (Table 1b); 8 x V100"
    assert RECIPES["ade20k_b2_40k"].paper == "mIoU 45.4 (Tables 1b, 1d); 8 x V100"
    assert RECIPES["ade20k_b3_40k"].paper == "mIoU 48.6 (Table 1d); 8 x V100"
    paper = "mIoU 83.1 on test, 82.2 without Mapillary (Table 4); 8 x V100"
    assert RECIPES["cityscapes_b5_from_mapillary"].paper == paper


def test_names_are_words_for_a_folder() -> None:
    assert all(name.replace("_", "").isalnum() and name == name.lower() for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_by_name(name: str) -> None:
    assert find_recipe(name) is RECIPES[name]


def test_an_unknown_recipe() -> None:
    with pytest.raises(
        ValueError, match=r"no recipe 'toytown'; did you mean 'toytown_b0'\?; segformer train --list shows all \d+"
    ):
        find_recipe("toytown")


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    recipe = replace(RECIPES["folder_b0"], name="mine")
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(to_json(recipe)))
    assert find_recipe(str(path)) == recipe


def test_a_missing_recipe_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.json: no such recipe"):
        find_recipe(str(tmp_path / "mine.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected JSON"), ("[]", "must be an object"), ('{"nme": "x"}', "unknown field 'nme'; did you mean 'name'")],
)
def test_a_wrong_recipe_file_is_named_in_the_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.json: .*{message}"):
        find_recipe(str(tmp_path / "mine.json"))
