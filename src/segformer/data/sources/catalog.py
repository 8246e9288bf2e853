"""Opening data sets: what ``--data`` and the data section of a recipe mean."""

from dataclasses import replace
from pathlib import Path

from segformer.config import DataConfig
from segformer.data.dataset import DataSource
from segformer.data.joining import join, relabel
from segformer.data.sources import SOURCES
from segformer.errors import UserError
from segformer.validation import check_choice

GENERIC = "folder"  # the layout of a folder that no other source recognizes


def open_data(data: DataConfig | str) -> DataSource:
    """Open a data set, given as ``--data`` takes it or as a config.

    Raises a UserError that names what is missing.

    >>> len(open_data("toytown").samples("val"))
    60
    """
    config = with_data(DataConfig(), data) if isinstance(data, str) else data
    source = open_root(config.dataset, config.root, config.masks)
    if config.relabel:
        source = relabel(source, config.relabel)
    others = [open_data(with_data(replace(config, also=(), masks="", relabel=()), spec)) for spec in config.also]
    return join([source, *others]) if others else source


def open_root(name: str, root: str, masks: str) -> DataSource:
    """Open one data set by its name in the table."""
    check_choice("data.dataset", name, SOURCES)
    row = SOURCES[name]
    if not masks:
        return row.open(root)
    if row.open_with_masks is None:
        takers = ", ".join(taker for taker, other in SOURCES.items() if other.open_with_masks)
        raise UserError(f"data.masks applies only to {takers}; {name} has its own masks; leave data.masks out")
    return row.open_with_masks(root, masks)


def with_data(config: DataConfig, spec: str) -> DataConfig:
    """Return the config pointed at a data set as ``--data`` names it; raises a UserError for an unknown name.

    NAME=ROOT, the name alone where no root is needed, NAME:ROOT for data elsewhere, or a FOLDER whose layout is
    recognized; a folder of unknown layout is taken for the generic one.
    """
    name, separator, root = spec.partition(":")
    if separator and name in SOURCES and SOURCES[name].remote:
        return replace(config, dataset=name, root=root)
    name, separator, root = spec.partition("=")
    if separator and "/" not in name and not Path(spec).exists():
        check_choice("--data", name, SOURCES)
        return replace(config, dataset=name, root=root)
    if spec in SOURCES and not SOURCES[spec].needs_root:
        return replace(config, dataset=spec, root="")
    return replace(config, dataset=recognize(spec), root=spec)


def recognize(folder: str) -> str:
    """Name of the data set that a folder looks like; raises a UserError where it looks like several."""
    found = [name for name, row in SOURCES.items() if row.recognizes is not None and row.recognizes(Path(folder))]
    if len(found) > 1:
        raise UserError(f"{folder} looks like {' and '.join(found)}; choose one: --data {found[0]}={folder}")
    return found[0] if found else GENERIC
