"""Table of the data sets that ``--data`` can open, one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segformer.config import Color
from segformer.data.dataset import DataSource
from segformer.data.sources import ade20k, camvid, cityscapes, coco_stuff, folder, hub, mapillary, toytown


@dataclass(frozen=True, kw_only=True)
class Source:
    """How one kind of data set is opened, recognized and described."""

    open: Callable[[str], DataSource]
    """Opens the data at a root, usually a folder; raises a UserError that names what is missing."""
    description: str
    """Contents and layout of the data set in one line."""
    recognizes: Callable[[Path], bool] | None = None
    """Tells whether a folder looks like this data set; None: ``--data FOLDER`` never chooses this data set."""
    classes: tuple[str, ...] | None = None
    """Class names; None: they depend on the root."""
    palette: tuple[Color, ...] | None = None
    """Color of each class; None: the colors depend on the root."""
    needs_root: bool = True
    """Whether a root must be given; if not, ``--data NAME`` is enough."""
    remote: bool = False
    """Whether a root may name data on a server, such as the hub; ``--data NAME:ROOT`` then works as well."""
    open_with_masks: Callable[[str, str], DataSource] | None = None
    """Opens the data at a root with the masks in a separate folder; None: ``data.masks`` cannot be used."""


SOURCES: dict[str, Source] = {
    "folder": Source(
        open=folder.open_source,
        description="images/ and masks/, with or without dataset.json",
        recognizes=folder.recognizes,
        open_with_masks=folder.open_source,
    ),
    "toytown": Source(
        open=toytown.open_source,
        description="drawn street scenes; nothing to download",
        classes=toytown.CLASSES,
        palette=toytown.PALETTE,
        needs_root=False,
    ),
    "ade20k": Source(
        open=ade20k.open_source,
        description="ADE20K, 150 classes (ADEChallengeData2016/)",
        recognizes=ade20k.recognizes,
        classes=ade20k.CLASSES,
        palette=ade20k.PALETTE,
    ),
    "cityscapes": Source(
        open=cityscapes.open_source,
        description="Cityscapes, 19 classes (leftImg8bit/ and gtFine/)",
        recognizes=cityscapes.recognizes,
        classes=cityscapes.CLASSES,
        palette=cityscapes.PALETTE,
    ),
    "coco_stuff": Source(
        open=coco_stuff.open_source,
        description="COCO-Stuff 164k, 171 classes (images/ and annotations/)",
        recognizes=coco_stuff.recognizes,
        classes=coco_stuff.CLASSES,
        palette=coco_stuff.PALETTE,
    ),
    "mapillary": Source(
        open=mapillary.open_source,
        description="Mapillary Vistas v1.2, 65 classes (training/ and validation/)",
        recognizes=mapillary.recognizes,
        classes=mapillary.CLASSES,
        palette=mapillary.PALETTE,
    ),
    "mapillary_as_cityscapes": Source(
        open=mapillary.open_as_cityscapes,
        description="Mapillary Vistas v1.2 with the 19 classes of Cityscapes",
        classes=cityscapes.CLASSES,
        palette=cityscapes.PALETTE,
    ),
    "camvid": Source(
        open=camvid.open_source,
        description="CamVid, 11 classes (train/ and trainannot/)",
        recognizes=camvid.recognizes,
        classes=camvid.CLASSES,
        palette=camvid.PALETTE,
    ),
    "hub": Source(
        open=hub.open_source,
        description="owner/name[:config] on the Hugging Face hub, or a local copy",
        remote=True,
    ),
}
"""Data sets by name.  The table is read anew at every use, so a data set that is added later works everywhere."""
