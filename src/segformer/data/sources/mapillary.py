"""Mapillary Vistas v1.2, with its own 65 classes or, for pre-training (Sec. 4.3), the 19 classes of Cityscapes.

    training|validation/images/*.jpg   training|validation/labels/*.png

The data set has 66 labels, raw ids 0-65.  The last one, "Unlabeled", is ignored; every other id is the index of a
class.  A download of v2.0 contains these labels in v1.2/labels/.
"""

from pathlib import Path

from segformer.config import IGNORE_INDEX, Color
from segformer.data.dataset import DataSource
from segformer.data.label_table import LabelTable
from segformer.data.sources import cityscapes
from segformer.data.sources.pairing import SplitFolders, check_root, has_split, read_splits

LAYOUT = "training/ or validation/, each with images/ and labels/ (or v1.2/labels/)"
FOLDERS = {"train": "training", "val": "validation"}
UNLABELED = 65
TABLE = LabelTable.identity(UNLABELED, ignore_index=UNLABELED)
CLASSES: tuple[str, ...] = (
    "Bird", "Ground Animal", "Curb", "Fence", "Guard Rail", "Barrier", "Wall", "Bike Lane", "Crosswalk - Plain",
    "Curb Cut", "Parking", "Pedestrian Area", "Rail Track", "Road", "Service Lane", "Sidewalk", "Bridge", "Building",
    "Tunnel", "Person", "Bicyclist", "Motorcyclist", "Other Rider", "Lane Marking - Crosswalk",
    "Lane Marking - General", "Mountain", "Sand", "Sky", "Snow", "Terrain", "Vegetation", "Water", "Banner", "Bench",
    "Bike Rack", "Billboard", "Catch Basin", "CCTV Camera", "Fire Hydrant", "Junction Box", "Mailbox", "Manhole",
    "Phone Booth", "Pothole", "Street Light", "Pole", "Traffic Sign Frame", "Utility Pole", "Traffic Light",
    "Traffic Sign (Back)", "Traffic Sign (Front)", "Trash Can", "Bicycle", "Boat", "Bus", "Car", "Caravan",
    "Motorcycle", "On Rails", "Other Vehicle", "Trailer", "Truck", "Wheeled Slow", "Car Mount", "Ego Vehicle",
)  # fmt: skip
PALETTE: tuple[Color, ...] = (
    (165, 42, 42), (0, 192, 0), (196, 196, 196), (190, 153, 153), (180, 165, 180), (90, 120, 150), (102, 102, 156),
    (128, 64, 255), (140, 140, 200), (170, 170, 170), (250, 170, 160), (96, 96, 96), (230, 150, 140), (128, 64, 128),
    (110, 110, 110), (244, 35, 232), (150, 100, 100), (70, 70, 70), (150, 120, 90), (220, 20, 60), (255, 0, 0),
    (255, 0, 100), (255, 0, 200), (200, 128, 128), (255, 255, 255), (64, 170, 64), (230, 160, 50), (70, 130, 180),
    (190, 255, 255), (152, 251, 152), (107, 142, 35), (0, 170, 30), (255, 255, 128), (250, 0, 30), (100, 140, 180),
    (220, 220, 220), (220, 128, 128), (222, 40, 40), (100, 170, 30), (40, 40, 40), (33, 33, 33), (100, 128, 160),
    (142, 0, 0), (70, 100, 150), (210, 170, 100), (153, 153, 153), (128, 128, 128), (0, 0, 80), (250, 170, 30),
    (192, 192, 192), (220, 220, 0), (140, 140, 20), (119, 11, 32), (150, 0, 255), (0, 60, 100), (0, 0, 142), (0, 0, 90),
    (0, 0, 230), (0, 80, 100), (128, 64, 64), (0, 0, 110), (0, 0, 70), (0, 0, 192), (32, 32, 32), (120, 10, 10),
)  # fmt: skip
CITYSCAPES_IDS = {
    "road": (13, 24, 41),  # Road, Lane Marking - General, Manhole
    "sidewalk": (2, 15),  # Curb, Sidewalk
    "building": (17,),
    "wall": (6,),
    "fence": (3,),
    "pole": (45, 47),  # Pole, Utility Pole
    "traffic light": (48,),
    "traffic sign": (50,),  # the front; the back is ignored
    "vegetation": (30,),
    "terrain": (29,),
    "sky": (27,),
    "person": (19,),
    "rider": (20, 21, 22),  # Bicyclist, Motorcyclist, Other Rider
    "car": (55,),
    "truck": (61,),
    "bus": (54,),
    "train": (58,),  # On Rails
    "motorcycle": (57,),
    "bicycle": (52,),
}
CITYSCAPES_TABLE = LabelTable.from_mapping(
    {raw: cityscapes.CLASSES.index(name) for name, ids in CITYSCAPES_IDS.items() for raw in ids},
    size=UNLABELED + 1,
    unlisted=IGNORE_INDEX,
)


def open_source(root: str) -> DataSource:
    """Open the splits that have a folder of images; raises a UserError that names what is missing."""
    splits = read_splits(split_folders(check_root(root, recognizes, LAYOUT)))
    return DataSource("mapillary", CLASSES, PALETTE, TABLE, splits)


def open_as_cityscapes(root: str) -> DataSource:
    """Open the same splits with the 19 classes of Cityscapes; all other classes are ignored."""
    splits = read_splits(split_folders(check_root(root, recognizes, LAYOUT)))
    return DataSource("mapillary_as_cityscapes", cityscapes.CLASSES, cityscapes.PALETTE, CITYSCAPES_TABLE, splits)


def recognizes(root: Path) -> bool:
    """Whether a folder contains the image and mask folders of at least one split in this layout."""
    return has_split(split_folders(root))


def split_folders(root: Path) -> SplitFolders:
    """Return (folder of images, folder of masks) of each split."""
    return {split: (root / name / "images", labels_folder(root / name)) for split, name in FOLDERS.items()}


def labels_folder(folder: Path) -> Path:
    """Return the folder with the v1.2 labels of a split, given the folder of the split."""
    return next((path for path in (folder / "labels", folder / "v1.2" / "labels") if path.is_dir()), folder / "labels")
