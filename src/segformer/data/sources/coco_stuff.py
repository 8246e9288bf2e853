"""COCO-Stuff 164k, 171 classes: the photos of COCO 2017 with the masks of stuffthingmaps_trainval2017.zip.

    images/train2017|val2017/*.jpg   annotations/train2017|val2017/*.png

The photos may also be in train2017/ and val2017/ at the root, and the masks in stuffthingmaps/,
annotations/stuffthingmaps/ or stuffthingmaps_trainval2017/ instead of annotations/.  If several of these folders exist,
only the first one is read.

A raw id is one less than the number of the class in the published list of 182 names, of which 11 never occur.  The
raw id 255 is ignored.
"""

from pathlib import Path

from segformer.config import IGNORE_INDEX, Color, default_palette
from segformer.data.dataset import DataSource
from segformer.data.label_table import LabelTable
from segformer.data.sources.pairing import SplitFolders, check_root, has_split, read_splits

LAYOUT = "images/ and annotations/ (or stuffthingmaps/), each with train2017/ or val2017/"
FOLDERS = {"train": "train2017", "val": "val2017"}
IMAGES = ("images", ".")
MASKS = ("annotations", "stuffthingmaps", "annotations/stuffthingmaps", "stuffthingmaps_trainval2017")
ABSENT_IDS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
CLASS_IDS = tuple(raw for raw in range(182) if raw not in ABSENT_IDS)
TABLE = LabelTable.from_mapping({raw: k for k, raw in enumerate(CLASS_IDS)} | {255: IGNORE_INDEX})
CLASSES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "banner", "blanket", "branch",
    "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet", "ceiling-other", "ceiling-tile",
    "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff", "dirt", "door-stuff", "fence",
    "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit",
    "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light", "mat", "metal",
    "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement", "pillow", "plant-other", "plastic",
    "platform", "playingfield", "railing", "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea",
    "shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw", "structural-other", "table",
    "tent", "textile-other", "towel", "tree", "vegetable", "wall-brick", "wall-concrete", "wall-other", "wall-panel",
    "wall-stone", "wall-tile", "wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood",
)  # fmt: skip
PALETTE: tuple[Color, ...] = default_palette(len(CLASSES))


def open_source(root: str) -> DataSource:
    """Open the splits that have a folder of images; raises a UserError that names what is missing."""
    splits = read_splits(split_folders(check_root(root, recognizes, LAYOUT)))
    return DataSource("coco_stuff", CLASSES, PALETTE, TABLE, splits)


def recognizes(root: Path) -> bool:
    """Whether a folder contains the image and mask folders of at least one split in this layout."""
    return has_split(split_folders(root))


def split_folders(root: Path) -> SplitFolders:
    """Return (folder of images, folder of masks) of each split."""
    return {
        split: (first_folder(root, IMAGES, name), first_folder(root, MASKS, name)) for split, name in FOLDERS.items()
    }


def first_folder(root: Path, parents: tuple[str, ...], name: str) -> Path:
    """Return the path of ``name`` in the first parent folder that contains it, or in parents[0] if none does."""
    folders = [root / parent / name for parent in parents]
    return next((folder for folder in folders if folder.is_dir()), folders[0])
