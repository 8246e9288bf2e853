"""CamVid, 11 classes, in the layout of the SegNet split.

train/*.png   trainannot/*.png   val/ valannot/   test/ testannot/      (0-10 the classes, 11 ignored)
"""

from pathlib import Path

from segformer.config import Color
from segformer.data.dataset import DataSource, LabelTable, Pair
from segformer.data.sources.pairing import Places, any_split, check_root, list_pairs, read_splits

LAYOUT = "train/ and trainannot/, val/ and valannot/, test/ and testannot/"
SPLITS = ("train", "val", "test")
UNLABELLED = 11
SEQUENCE = r"[^_]+"  # 0016E5_08640, Seq05VD_f00090: one of a handful of videos
TABLE = LabelTable.identity(11, ignore_index=UNLABELLED)
CLASSES: tuple[str, ...] = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
PALETTE: tuple[Color, ...] = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


def open_source(root: str) -> DataSource:
    """Read the splits that have images; raises UserError that name what is missing."""
    splits = read_splits(places(check_root(root, fits, LAYOUT)))
    return DataSource("camvid", CLASSES, PALETTE, TABLE, splits, sequence=SEQUENCE)


def find_pairs(root: Path, split: str) -> list[Pair]:
    """Images with their masks of "train", "val" or "test"."""
    return list_pairs(*places(root)[split])


def fits(root: Path) -> bool:
    """Whether a folder looks like it."""
    return any_split(places(root))


def places(root: Path) -> Places:
    """Where each split lies."""
    return {split: (root / split, root / f"{split}annot") for split in SPLITS}
