"""Recipes by name; each differs from another by what it replaces."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from segformer.config import (
    DataConfig,
    EvalConfig,
    ModelConfig,
    Preprocessing,
    Recipe,
    TrainConfig,
    closest,
    from_json,
)
from segformer.errors import UserError
from segformer.files import read_json
from segformer.published import MIT_SIZES


def mit(encoder: str, **options: Any) -> ModelConfig:
    """Return the paper's model with this encoder (Table 6), and with the fields of ``options`` changed."""
    return ModelConfig(encoder=encoder, decoder_channels=MIT_SIZES[encoder].decoder_channels, **options)


# From random weights and in minutes, more and smaller steps at a higher learning rate go further than the paper's
# schedule, which starts from pre-training: no stochastic depth, milder augmentation.
FOLDER_B0 = Recipe(
    name="folder_b0",
    description="Your own folder of images and masks: MiT-B0 at a short side of 256, from scratch, on any machine.",
    model=mit("mit_b0", drop_path=0.0),
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

CAMVID_B0 = replace(
    CAMVID_B0_QUICK,
    name="camvid_b0",
    description="CamVid (11 classes) at full size: MiT-B0 from scratch, within an hour on two CPU cores.",
    data=replace(CAMVID_B0_QUICK.data, resize=(480, 360), ratio=(0.75, 1.5), crop=(320, 416), photometric=True),
    preprocessing=Preprocessing(long_side=480, short_side=360),
    train=replace(CAMVID_B0_QUICK.train, steps=3000, eval_every=500),
)

SMALL_DATA = replace(
    FOLDER_B0,
    name="small_data",
    description="Tens to a few hundred images: classes balanced, rare ones sought, weights averaged, early stopping.",
    data=replace(FOLDER_B0.data, ratio=(0.5, 2.0), rare_crop=0.5),
    train=replace(FOLDER_B0.train, balanced=True, dice=0.5, ema=0.99, patience=6, eval_every=100),
)

# The paper's runs (Sec. 4.1, the released configurations). They start from an ImageNet-1K encoder, which
# train.init_from names; eight GPUs of 32 GB there, any number here: the batch is that of a step over all devices.
ON = "8 x V100"
ADE20K_B0 = Recipe(
    name="ade20k_b0",
    description="ADE20K, 150 classes: MiT-B0.",
    paper=f"mIoU 37.4, 38.0 multi-scale (Table 1a); {ON}",
    model=mit("mit_b0"),
    data=DataConfig(dataset="ade20k", root="data/ade20k", resize=(2048, 512), crop=(512, 512)),
    preprocessing=Preprocessing(long_side=2048, short_side=512),
    train=TrainConfig(steps=160_000, batch_size=16, eval_every=16_000, log_every=50, workers=4),
)
CITYSCAPES_B0 = Recipe(
    name="cityscapes_b0",
    description="Cityscapes, 19 classes: MiT-B0.",
    paper=f"mIoU 76.2, 78.1 multi-scale (Table 1a); {ON}",
    model=mit("mit_b0"),
    data=DataConfig(dataset="cityscapes", root="data/cityscapes", resize=(2048, 1024), crop=(1024, 1024)),
    preprocessing=Preprocessing(long_side=2048, short_side=1024),
    train=replace(ADE20K_B0.train, batch_size=8),
    eval=EvalConfig(crop=(1024, 1024), stride=(768, 768)),
)
COCO_STUFF_B0 = replace(
    ADE20K_B0,
    name="coco_stuff_b0",
    description="COCO-Stuff 164k, 171 classes: MiT-B0.",
    paper=f"mIoU 35.6 (Table 1a); {ON}",
    data=replace(ADE20K_B0.data, dataset="coco_stuff", root="data/coco_stuff"),
    train=replace(ADE20K_B0.train, steps=80_000, eval_every=8_000),
)


def larger(recipe: Recipe, encoder: str, paper: str) -> Recipe:
    """Return a recipe of MiT-B0 with another encoder, and the decoder that goes with it."""
    size = encoder.removeprefix("mit_")
    name = recipe.name.replace("b0", size, 1)
    description = recipe.description.replace("B0", size.upper())
    model = mit(encoder)
    return replace(recipe, name=name, description=description, paper=f"{paper} (Table 1a); {ON}", model=model)


ADE20K_B1 = larger(ADE20K_B0, "mit_b1", "mIoU 42.2, 43.1 multi-scale")
ADE20K_B2 = larger(ADE20K_B0, "mit_b2", "mIoU 46.5, 47.5 multi-scale")
ADE20K_B3 = larger(ADE20K_B0, "mit_b3", "mIoU 49.4, 50.0 multi-scale")
ADE20K_B4 = larger(ADE20K_B0, "mit_b4", "mIoU 50.3, 51.1 multi-scale")
ADE20K_B5 = replace(
    larger(ADE20K_B0, "mit_b5", "mIoU 51.0, 51.8 multi-scale"),
    data=replace(ADE20K_B0.data, resize=(2048, 640), crop=(640, 640)),
    preprocessing=Preprocessing(long_side=2048, short_side=640),
)
CITYSCAPES_B1 = larger(CITYSCAPES_B0, "mit_b1", "mIoU 78.5, 80.0 multi-scale")
CITYSCAPES_B2 = larger(CITYSCAPES_B0, "mit_b2", "mIoU 81.0, 82.2 multi-scale")
CITYSCAPES_B3 = larger(CITYSCAPES_B0, "mit_b3", "mIoU 81.7, 83.3 multi-scale")
CITYSCAPES_B4 = larger(CITYSCAPES_B0, "mit_b4", "mIoU 82.3, 83.9 multi-scale")
CITYSCAPES_B5 = larger(CITYSCAPES_B0, "mit_b5", "mIoU 82.4, 84.0 multi-scale")
COCO_STUFF_B1 = larger(COCO_STUFF_B0, "mit_b1", "mIoU 40.2")
COCO_STUFF_B2 = larger(COCO_STUFF_B0, "mit_b2", "mIoU 44.6")
COCO_STUFF_B3 = larger(COCO_STUFF_B0, "mit_b3", "mIoU 45.5")
COCO_STUFF_B4 = larger(COCO_STUFF_B0, "mit_b4", "mIoU 46.5")
COCO_STUFF_B5 = larger(COCO_STUFF_B0, "mit_b5", "mIoU 46.7")


def faster(crop: tuple[int, int], short_side: int, miou: str, eval_config: EvalConfig) -> Recipe:
    """Return Cityscapes on MiT-B0 at a smaller size (Table 2, from a short side of 1024 down)."""
    return replace(
        CITYSCAPES_B0,
        name=f"cityscapes_b0_{crop[0]}x{crop[1]}",
        description=f"Cityscapes, 19 classes: MiT-B0, fast, at a short side of {short_side}.",
        paper=f"mIoU {miou} (Table 2); {ON}",
        data=replace(CITYSCAPES_B0.data, resize=(2 * short_side, short_side), crop=crop),
        preprocessing=Preprocessing(long_side=2 * short_side, short_side=short_side),
        eval=eval_config,
    )


CITYSCAPES_B0_768 = faster((768, 768), 768, "75.3", EvalConfig(crop=(768, 768), stride=(768, 768)))
CITYSCAPES_B0_640 = faster((640, 1280), 640, "73.7", EvalConfig())
CITYSCAPES_B0_512 = faster((512, 1024), 512, "71.9", EvalConfig())

# Table 4: Mapillary Vistas first, then train and val of Cityscapes, for the test server.
MAPILLARY_B5 = replace(
    CITYSCAPES_B5,
    name="mapillary_b5",
    description="Mapillary Vistas in the 19 classes of Cityscapes: MiT-B5, to start cityscapes_b5_from_mapillary from.",
    paper=f"of Table 4; {ON}",
    data=replace(CITYSCAPES_B5.data, dataset="mapillary_as_cityscapes", root="data/mapillary", ratio=(0.5, 1.0)),
)
CITYSCAPES_B5_FROM_MAPILLARY = replace(
    CITYSCAPES_B5,
    name="cityscapes_b5_from_mapillary",
    description="Cityscapes train and val, for the test server: MiT-B5 that has seen Mapillary.",
    paper=f"mIoU 83.1 on test, 82.2 without Mapillary (Table 4); {ON}",
    data=replace(CITYSCAPES_B5.data, train_split="trainval"),
    train=replace(CITYSCAPES_B5.train, init_from="runs/mapillary_b5/best"),
)


def ablation(recipe: Recipe, paper: str, channels: int | None = None) -> Recipe:
    """Return a recipe at the ablations' 40k steps, with another decoder width if one is given."""
    name = f"{recipe.name}{f'_c{channels}' if channels else ''}_40k"
    width = f", decoder width {channels}" if channels else ""
    return replace(
        recipe,
        name=name,
        description=f"{recipe.description.rstrip('.')}{width}, 40k steps.",
        paper=f"mIoU {paper}; {ON}",
        model=replace(recipe.model, decoder_channels=channels or recipe.model.decoder_channels),
        train=replace(recipe.train, steps=40_000, eval_every=4_000),
    )


ABLATIONS = (
    *(
        ablation(ADE20K_B2, f"{miou} (Table 1b)", channels)
        for channels, miou in ((256, 44.9), (512, 45.0), (1024, 45.2), (2048, 45.6))
    ),
    ablation(ADE20K_B2, "45.4 (Tables 1b, 1d)"),
    ablation(ADE20K_B3, "48.6 (Table 1d)"),
)

OWN = (FOLDER_B0, SMALL_DATA, CAMVID_B0, CAMVID_B0_QUICK, TOYTOWN_B0)
PAPER = (
    *(ADE20K_B0, ADE20K_B1, ADE20K_B2, ADE20K_B3, ADE20K_B4, ADE20K_B5),
    *(CITYSCAPES_B0, CITYSCAPES_B1, CITYSCAPES_B2, CITYSCAPES_B3, CITYSCAPES_B4, CITYSCAPES_B5),
    *(CITYSCAPES_B0_768, CITYSCAPES_B0_640, CITYSCAPES_B0_512),
    *(COCO_STUFF_B0, COCO_STUFF_B1, COCO_STUFF_B2, COCO_STUFF_B3, COCO_STUFF_B4, COCO_STUFF_B5),
    *(MAPILLARY_B5, CITYSCAPES_B5_FROM_MAPILLARY, *ABLATIONS),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*OWN, *PAPER)}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by name or from a recipe.json; raises a UserError that names the closest known one."""
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise UserError(f"no recipe '{name}'{closest(name, RECIPES)}; segformer train --list shows all {len(RECIPES)}")
    return RECIPES[name]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.json; raises a UserError that names the file and the field at fault."""
    if not path.is_file():
        raise UserError(f"{path}: no such recipe")
    values = read_json(path)
    try:
        return from_json(Recipe, values)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
