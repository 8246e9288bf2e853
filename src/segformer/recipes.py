"""Recipes by name; each differs from another by what it replaces."""

from dataclasses import replace
from pathlib import Path

from segformer.config import DataConfig, ModelConfig, Preprocessing, Recipe, TrainConfig, check_choice, from_json
from segformer.files import read_json

# From random weights and in minutes, more and smaller steps at a higher learning rate go further than the paper's
# schedule, which starts from pre-training: no stochastic depth, milder augmentation.
FOLDER_B0 = Recipe(
    name="folder_b0",
    description="Your own folder of images and masks: MiT-B0 at a short side of 256, from scratch, on any machine.",
    model=ModelConfig.of("mit_b0", drop_path=0.0),
    data=DataConfig(dataset="folder", root="data", resize=(1024, 256), ratio=(0.75, 1.5), crop=(256, 256)),
    preprocessing=Preprocessing(long_side=1024, short_side=256),
    train=TrainConfig(
        steps=2000,
        batch_size=4,
        lr=1.2e-3,
        decoder_lr_factor=1.0,
        warmup_steps=50,
        loss_average="valid",
        eval_every=250,
    ),
)

CAMVID_B0_QUICK = replace(
    FOLDER_B0,
    name="camvid_b0_quick",
    description="CamVid (11 classes) at half size: MiT-B0 from scratch in minutes on two CPU cores.",
    data=replace(
        FOLDER_B0.data,
        root="data/camvid11",
        resize=(240, 180),
        ratio=(0.8, 1.25),
        crop=(176, 240),
        photometric=False,
    ),
    preprocessing=Preprocessing(long_side=240, short_side=180),
    train=replace(
        FOLDER_B0.train,
        steps=3400,
        eval_every=340,
        # About 1 / sqrt(share of pixels): sky, building, pole, road, pavement, tree, sign, fence, car, person, bicycle
        class_weights=(0.5, 0.5, 2.0, 0.4, 1.0, 0.7, 2.0, 2.0, 0.9, 2.5, 3.5),
    ),
)

TOYTOWN_B0 = replace(
    FOLDER_B0,
    name="toytown_b0",
    description="Toytown, streets drawn from a seed: MiT-B0 from scratch; what `segformer demo` trains.",
    data=replace(
        FOLDER_B0.data,
        dataset="toytown",
        root="",
        resize=(320, 192),
        ratio=(0.8, 1.25),
        crop=(160, 160),
        photometric=False,
    ),
    preprocessing=Preprocessing(long_side=320, short_side=192),
    train=replace(
        FOLDER_B0.train,
        steps=1300,
        eval_every=325,
        # About 1 / sqrt(share of pixels): sky, building, road, pavement, tree, car, person, sign
        class_weights=(0.9, 0.6, 0.7, 1.0, 0.9, 1.3, 2.0, 2.8),
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (FOLDER_B0, CAMVID_B0_QUICK, TOYTOWN_B0)}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name or from a recipe.json; raises a ValueError that names the closest known one."""
    if name.endswith(".json"):
        return read_recipe(Path(name))
    check_choice("RECIPE", name, RECIPES)
    return RECIPES[name]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.json; raises FileNotFoundError, or a ValueError that names the file and the field at fault."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe")
    values = read_json(path)
    try:
        return from_json(Recipe, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
