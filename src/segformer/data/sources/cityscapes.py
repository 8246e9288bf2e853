"""Cityscapes, 19 classes, in its official layout.

    leftImg8bit/<split>/<city>/*_leftImg8bit.png
    gtFine/<split>/<city>/*_gtFine_labelIds.png or *_gtFine_labelTrainIds.png   (gtCoarse for train_extra)

All splits are read from one kind of labels: labelTrainIds if every image has them, otherwise labelIds and the official
table of classes.  The labels of test are placeholders, and all of their pixels are ignored.
"""

from pathlib import Path

from segformer.config import IGNORE_INDEX, Color
from segformer.data.dataset import DataSource, Pair
from segformer.data.image_paths import list_images
from segformer.data.label_table import LabelTable
from segformer.data.sources.pairing import SplitFolders, check_pairs, check_root, has_split
from segformer.errors import UserError

LAYOUT = "leftImg8bit/ and gtFine/ (or gtCoarse/), each with train/, val/, test/ or train_extra/"
ANNOTATIONS = {"train": "gtFine", "val": "gtFine", "test": "gtFine", "train_extra": "gtCoarse"}
IMAGE_ENDING = "_leftImg8bit.png"
VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
CLASS_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
SEQUENCE = r"[^/]+/[^_/]+_\d+"  # matches the drive in frankfurt/frankfurt_000001_002512
LICENSE_PLATE = 255  # id -1, which is absent from the official PNGs and stored as 255 by other tools
TABLES = {  # by kind of label file; the first kind that exists for every image is used
    "labelTrainIds": LabelTable.identity(19),
    "labelIds": LabelTable.from_mapping(
        {raw: k for k, raw in enumerate(CLASS_IDS)} | dict.fromkeys((*VOID_IDS, LICENSE_PLATE), IGNORE_INDEX)
    ),
}

CLASSES: tuple[str, ...] = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
PALETTE: tuple[Color, ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip


def open_source(root: str) -> DataSource:
    """Open the splits that have images and labels, and add "trainval", which joins train and val.

    Raises a UserError that names what is missing.
    """
    path = check_root(root, recognizes, LAYOUT)
    found = {split: masks for split, (images, masks) in split_folders(path).items() if images.is_dir()}
    labeled = [split for split, masks in found.items() if masks.is_dir()]
    kind = find_kind(path, labeled)
    splits = {split: check_pairs(list_pairs(path, split, kind), split_folders(path)[split][0]) for split in labeled}
    if "train" in splits and "val" in splits:
        splits["trainval"] = splits["train"] + splits["val"]
    notes = [f"labels are read from *_{kind}.png"]
    notes += [f"{split} is left out: no labels at {masks}" for split, masks in found.items() if split not in labeled]
    return DataSource("cityscapes", CLASSES, PALETTE, TABLES[kind], splits, tuple(notes), SEQUENCE)


def find_kind(root: Path, splits: list[str]) -> str:
    """Return the first kind of labels that all images have; raises a UserError that names missing files."""
    missing = {}
    for kind in TABLES:
        pairs = [pair for split in splits for pair in list_pairs(root, split, kind)]
        missing[kind] = {pair.image: pair.mask for pair in pairs if not pair.mask.is_file()}
        if not missing[kind]:
            return kind
    train_ids, ids = missing.values()
    for image, mask in ids.items():
        if image in train_ids:
            raise UserError(f"{mask}: no mask for the image {image}; add it, or remove the image")
    raise UserError(
        f"expected one kind of labels for all images, but {next(iter(train_ids.values()))} is missing, and so is "
        f"{next(iter(ids.values()))}; create labelTrainIds for all images with the tool createTrainIdLabelImgs of "
        f"cityscapesScripts"
    )


def list_pairs(root: Path, split: str, kind: str) -> list[Pair]:
    """Pairs of a split: images and expected label files; ``kind`` is "labelIds" or "labelTrainIds"."""
    images, masks = split_folders(root)[split]
    files = [path for path in list_images(images) if path.name.endswith(IMAGE_ENDING)]
    names = [path.relative_to(images).as_posix().removesuffix(IMAGE_ENDING) for path in files]
    ending = f"_{ANNOTATIONS[split]}_{kind}.png"
    return [Pair(name, path, masks / f"{name}{ending}") for name, path in zip(names, files, strict=True)]


def recognizes(root: Path) -> bool:
    """Whether a folder contains the image and mask folders of at least one split in this layout."""
    return has_split(split_folders(root))


def split_folders(root: Path) -> SplitFolders:
    """Return (folder of images, folder of masks) of each split."""
    return {split: (root / "leftImg8bit" / split, root / kind / split) for split, kind in ANNOTATIONS.items()}
