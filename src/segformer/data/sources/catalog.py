"""The data sets by name, and what ``--data`` means."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segformer.config import DataConfig, check_choice
from segformer.data.dataset import DataSource, join, relabel
from segformer.data.sources import ade20k, camvid, cityscapes, coco_stuff, folder, hub, mapillary, toytown
from segformer.errors import UserError

HUB = "hub"
DATASETS: dict[str, Callable[[str], DataSource]] = {
    "folder": folder.open_source,
    "toytown": toytown.open_source,
    "ade20k": ade20k.open_source,
    "cityscapes": cityscapes.open_source,
    "coco_stuff": coco_stuff.open_source,
    "mapillary": mapillary.open_source,
    "mapillary_as_cityscapes": mapillary.open_as_cityscapes,
    "camvid": camvid.open_source,
    HUB: hub.open_source,
}
LAYOUTS: dict[str, Callable[[Path], bool]] = {
    "folder": folder.fits,
    "ade20k": ade20k.fits,
    "cityscapes": cityscapes.fits,
    "coco_stuff": coco_stuff.fits,
    "mapillary": mapillary.fits,
    "camvid": camvid.fits,
}


def open_data(data: DataConfig | str) -> DataSource:
    """Find the samples of a data set, given as ``--data`` takes it or as a config.

    Raises UserError that say what is missing.

    >>> len(open_data("toytown").samples("val"))
    60
    """
    config = with_data(DataConfig(), data) if isinstance(data, str) else data
    check_choice("data.dataset", config.dataset, DATASETS)
    if config.masks and config.dataset != "folder":
        raise UserError(f"data.masks is for generic folders; {config.dataset} has masks of its own")
    if config.dataset == "folder":
        source = folder.open_source(config.root, config.masks)
    else:
        source = DATASETS[config.dataset](config.root)
    if config.relabel:
        source = relabel(source, config.relabel)
    others = [open_data(with_data(replace(config, also=(), masks="", relabel=()), spec)) for spec in config.also]
    return join([source, *others]) if others else source


def with_data(config: DataConfig, spec: str) -> DataConfig:
    """Point a config at what ``--data`` says: NAME=ROOT, toytown, hub:OWNER/NAME, or a FOLDER of a known layout."""
    if spec.startswith(f"{HUB}:"):
        return replace(config, dataset=HUB, root=spec.removeprefix(f"{HUB}:"))
    name, separator, root = spec.partition("=")
    if separator and "/" not in name and not Path(spec).exists():
        check_choice("--data", name, DATASETS)
        return replace(config, dataset=name, root=root)
    if spec == "toytown":  # the one that needs no folder
        return replace(config, dataset=spec, root="")
    found = [known for known, fits in LAYOUTS.items() if fits(Path(spec))]
    if len(found) > 1:
        raise UserError(f"{spec} looks like {' and '.join(found)}; say which: --data {found[0]}={spec}")
    return replace(config, dataset=found[0] if found else "folder", root=spec)
