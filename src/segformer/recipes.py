"""Training recipes by name. Most are copies of another recipe in which a few fields are replaced."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from segformer.config import DataConfig, EvalConfig, ModelConfig, Preprocessing, Recipe, TrainConfig
from segformer.errors import UserError
from segformer.files import read_json
from segformer.json_config import from_json
from segformer.published import MIT_SIZES, TABLE_1A, TABLE_1B, TABLE_1D, TABLE_2, TABLE_4
from segformer.validation import closest

RECIPES: dict[str, Recipe] = {}
"""All recipes by name."""
GROUPS: dict[str, list[str]] = {}
"""Names of the recipes in each group; the groups are the headings of ``segformer train --list``."""


def add(group: str, recipe: Recipe) -> Recipe:
    """Add a recipe to RECIPES and to a group in GROUPS, and return the recipe."""
    assert recipe.name not in RECIPES
    RECIPES[recipe.name] = recipe
    GROUPS.setdefault(group, []).append(recipe.name)
    return recipe


def mit(encoder: str, **options: Any) -> ModelConfig:
    """Return the paper's model for an encoder (Table 6); ``options`` sets further fields of the ModelConfig."""
    return ModelConfig(encoder=encoder, decoder_channels=MIT_SIZES[encoder].decoder_channels, **options)


# Recipes of our own. They start from random weights and train for minutes. In this setting, many small batches, a
# higher learning rate, no stochastic depth and milder augmentation give a better model than the paper's schedule,
# which is meant for pre-trained weights.
OWN = "Your own data, and data sets that train in minutes"
FOLDER_B0 = add(
    OWN,
    Recipe(
        name="folder_b0",
        description="Your own folder of images and masks: MiT-B0 from scratch, short side 256, on any machine.",
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
    ),
)
add(
    OWN,
    replace(
        FOLDER_B0,
        name="small_data",
        description=(
            "Tens to a few hundred images: class weights, crops of rare classes, weight averaging, early stopping."
        ),
        data=replace(FOLDER_B0.data, ratio=(0.5, 2.0), rare_crop=0.5),
        train=replace(FOLDER_B0.train, balanced=True, dice=0.5, ema=0.99, patience=6, eval_every=100),
    ),
)
CAMVID_B0 = add(
    OWN,
    replace(
        FOLDER_B0,
        name="camvid_b0",
        description="CamVid (11 classes) at full size: MiT-B0 from scratch, within an hour on two CPU cores.",
        data=replace(FOLDER_B0.data, root="data/camvid11", resize=(480, 360), crop=(320, 416)),
        preprocessing=Preprocessing(long_side=480, short_side=360),
        train=replace(
            FOLDER_B0.train,
            steps=3000,
            eval_every=500,
            # About 1 / sqrt(share of pixels): sky, building, pole, road, pavement, tree, sign, fence, car, person,
            # bicycle
            class_weights=(0.5, 0.5, 2.0, 0.4, 1.0, 0.7, 2.0, 2.0, 0.9, 2.5, 3.5),
        ),
    ),
)
add(
    OWN,
    replace(
        CAMVID_B0,
        name="camvid_b0_quick",
        description="CamVid (11 classes) at half size: MiT-B0 from scratch in minutes on two CPU cores.",
        data=replace(CAMVID_B0.data, resize=(240, 180), ratio=(0.8, 1.25), crop=(176, 240), photometric=False),
        preprocessing=Preprocessing(long_side=240, short_side=180),
        train=replace(CAMVID_B0.train, steps=3400, eval_every=340),
    ),
)
add(
    OWN,
    replace(
        FOLDER_B0,
        name="toytown_b0",
        description="Toytown (drawn street scenes): MiT-B0 from scratch; used by `segformer demo`.",
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
    ),
)

# The paper's runs (Sec. 4.1 and the released configurations). They start from an encoder trained on ImageNet-1K, to be
# given as train.init_from. The paper used eight GPUs of 32 GB; since batch_size counts the images of a step on all
# devices, the run is the same on any number of GPUs.
ON = "8 x V100"
ADE20K_B0 = Recipe(
    name="ade20k_b0",
    description="ADE20K, 150 classes: MiT-B0.",
    model=mit("mit_b0"),
    data=DataConfig(dataset="ade20k", root="data/ade20k", resize=(2048, 512), crop=(512, 512)),
    preprocessing=Preprocessing(long_side=2048, short_side=512),
    train=TrainConfig(steps=160_000, batch_size=16, eval_every=16_000, log_every=50, workers=4),
)
CITYSCAPES_B0 = Recipe(
    name="cityscapes_b0",
    description="Cityscapes, 19 classes: MiT-B0.",
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
    data=replace(ADE20K_B0.data, dataset="coco_stuff", root="data/coco_stuff"),
    train=replace(ADE20K_B0.train, steps=80_000, eval_every=8_000),
)


def table_1a(recipe: Recipe, encoder: str, miou: str, multiscale: str = "") -> Recipe:
    """Derive the recipe for an encoder from a recipe for MiT-B0.

    ``miou`` and ``multiscale`` are the paper's single-scale and multi-scale mIoU.
    """
    size = encoder.removeprefix("mit_")
    figures = f"mIoU {miou}, {multiscale} multi-scale" if multiscale else f"mIoU {miou}"
    return replace(
        recipe,
        name=recipe.name.replace("b0", size, 1),
        description=recipe.description.replace("B0", size.upper()),
        paper=f"{figures} (Table 1a); {ON}",
        model=mit(encoder),
    )


for encoder, row in TABLE_1A.items():
    recipe = table_1a(ADE20K_B0, encoder, row.ade20k_miou, row.ade20k_multiscale)
    if encoder == "mit_b5":
        recipe = replace(
            recipe,
            data=replace(recipe.data, resize=(2048, 640), crop=(640, 640)),
            preprocessing=Preprocessing(long_side=2048, short_side=640),
        )
    add("Table 1a: ADE20K", recipe)
for encoder, row in TABLE_1A.items():
    recipe = table_1a(CITYSCAPES_B0, encoder, row.cityscapes_miou, row.cityscapes_multiscale)
    add("Table 1a: Cityscapes", recipe)


def table_2(crop: tuple[int, int], eval_config: EvalConfig) -> Recipe:
    """Return a recipe of Table 2: MiT-B0 on Cityscapes at a smaller size.  The short side is the height of ``crop``."""
    short_side = crop[0]
    miou = next(row.cityscapes_miou for row in TABLE_2 if row.method == f"SegFormer @ {short_side}")
    return replace(
        CITYSCAPES_B0,
        name=f"cityscapes_b0_{crop[0]}x{crop[1]}",
        description=f"Cityscapes, 19 classes: MiT-B0 at a short side of {short_side}, for speed.",
        paper=f"mIoU {miou} (Table 2); {ON}",
        data=replace(CITYSCAPES_B0.data, resize=(2 * short_side, short_side), crop=crop),
        preprocessing=Preprocessing(long_side=2 * short_side, short_side=short_side),
        eval=eval_config,
    )


for crop, eval_config in {
    (768, 768): EvalConfig(crop=(768, 768), stride=(768, 768)),
    (640, 1280): EvalConfig(),
    (512, 1024): EvalConfig(),
}.items():
    add("Table 2: Cityscapes at smaller sizes", table_2(crop, eval_config))
for encoder, row in TABLE_1A.items():
    add("Table 1a: COCO-Stuff", table_1a(COCO_STUFF_B0, encoder, row.coco_stuff_miou))

CITYSCAPES_B5 = RECIPES["cityscapes_b5"]
MAPILLARY_FIRST = "Table 4: Mapillary Vistas, then Cityscapes for its test server"
add(
    MAPILLARY_FIRST,
    replace(
        CITYSCAPES_B5,
        name="mapillary_b5",
        description=(
            "Mapillary Vistas with the 19 classes of Cityscapes: MiT-B5, the start of cityscapes_b5_from_mapillary."
        ),
        paper=f"first step of Table 4; {ON}",
        data=replace(CITYSCAPES_B5.data, dataset="mapillary_as_cityscapes", root="data/mapillary", ratio=(0.5, 1.0)),
    ),
)
add(
    MAPILLARY_FIRST,
    replace(
        CITYSCAPES_B5,
        name="cityscapes_b5_from_mapillary",
        description="Cityscapes train and val, for the test server: MiT-B5 pre-trained on Mapillary Vistas.",
        paper=(
            f"mIoU {TABLE_4['ImageNet-1K, Mapillary Vistas']} on test, {TABLE_4['ImageNet-1K']} without Mapillary "
            f"(Table 4); {ON}"
        ),
        data=replace(CITYSCAPES_B5.data, train_split="trainval"),
        train=replace(CITYSCAPES_B5.train, init_from="runs/mapillary_b5/best"),
    ),
)


def ablation(recipe: Recipe, figure: str, channels: int | None = None) -> Recipe:
    """Derive the recipe of an ablation: 40,000 steps and, if given, a different number of decoder channels.

    ``figure`` is the paper's mIoU.
    """
    width = f", decoder width {channels}" if channels else ""
    return replace(
        recipe,
        name=f"{recipe.name}{f'_c{channels}' if channels else ''}_40k",
        description=f"{recipe.description.rstrip('.')}{width}, 40k steps.",
        paper=f"mIoU {figure}; {ON}",
        model=replace(recipe.model, decoder_channels=channels or recipe.model.decoder_channels),
        train=replace(recipe.train, steps=40_000, eval_every=4_000),
    )


ABLATIONS = "Tables 1b and 1d: ablations on ADE20K"
ADE20K_B2 = RECIPES["ade20k_b2"]
for channels, width in TABLE_1B.items():
    if channels != ADE20K_B2.model.decoder_channels:
        add(ABLATIONS, ablation(ADE20K_B2, f"{width.miou} (Table 1b)", channels))
add(ABLATIONS, ablation(ADE20K_B2, f"{TABLE_1D['MiT-B2 (S1-4)'].miou} (Tables 1b, 1d)"))
add(ABLATIONS, ablation(RECIPES["ade20k_b3"], f"{TABLE_1D['MiT-B3 (S1-4)'].miou} (Table 1d)"))


def find_recipe(name: str) -> Recipe:
    """Return the recipe of this name, or the recipe in this ``.json`` file.

    For an unknown name, raises a UserError that suggests the most similar one.
    """
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise UserError(f"no recipe '{name}'{closest(name, RECIPES)}; segformer train --list shows all {len(RECIPES)}")
    return RECIPES[name]


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a recipe.json; raises a UserError that names the file and the invalid field."""
    if not path.is_file():
        raise UserError(f"{path}: no such recipe file")
    values = read_json(path)
    try:
        return from_json(Recipe, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
