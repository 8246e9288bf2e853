"""CamVid, 11 classes, in the layout of the SegNet split.

train/*.png   trainannot/*.png   (likewise for val and test; ids 0-10: classes, id 11: ignored)
"""

from pathlib import Path

from segformer.config import Color
from segformer.data.dataset import DataSource
from segformer.data.label_table import LabelTable
from segformer.data.sources.pairing import SplitFolders, check_root, has_split, read_splits

LAYOUT = "train/ and trainannot/, val/ and valannot/, test/ and testannot/"
SPLITS = ("train", "val", "test")
UNLABELLED = 11
SEQUENCE = r"[^_]+"  # matches the name of the video in 0016E5_08640 or Seq05VD_f00090
TABLE = LabelTable.identity(11, ignore_index=UNLABELLED)
CLASSES: tuple[str, ...] = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
PALETTE: tuple[Color, ...] = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


def open_source(root: str) -> DataSource:
    """Open the splits that have a folder of images; raises a UserError that names what is missing."""
    splits = read_splits(split_folders(check_root(root, recognizes, LAYOUT)))
    return DataSource("camvid", CLASSES, PALETTE, TABLE, splits, sequence=SEQUENCE)


def recognizes(root: Path) -> bool:
    """Whether a folder contains the image and mask folders of at least one split in this layout."""
    return has_split(split_folders(root))


def split_folders(root: Path) -> SplitFolders:
    """Return (folder of images, folder of masks) of each split."""
    return {split: (root / split, root / f"{split}annot") for split in SPLITS}
