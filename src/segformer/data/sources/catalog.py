"""Open the data sets that ``--data`` or the data section of a recipe names."""

from dataclasses import replace
from pathlib import Path

from segformer.config import DataConfig
from segformer.data.dataset import DataSource
from segformer.data.joining import join, relabel
from segformer.data.sources import SOURCES
from segformer.errors import UserError
from segformer.validation import check_choice

GENERIC = "folder"  # the layout assumed for a folder that no data set recognizes


def open_data(data: DataConfig | str) -> DataSource:
    """Open a data set, given as a config or as a string in the syntax of ``--data``.

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
    """Open the data set ``name`` of SOURCES at ``root``; ``masks``, if not empty, is a separate folder of masks."""
    check_choice("data.dataset", name, SOURCES)
    row = SOURCES[name]
    if not masks:
        return row.open(root)
    if row.open_with_masks is None:
        takers = ", ".join(taker for taker, other in SOURCES.items() if other.open_with_masks)
        raise UserError(f"data.masks applies only to {takers}; {name} has its own masks; leave data.masks out")
    return row.open_with_masks(root, masks)


def with_data(config: DataConfig, spec: str) -> DataConfig:
    """Return the config with the data set that ``spec`` names; raises a UserError for an unknown name.

    ``spec`` is NAME=ROOT, NAME alone if the data set needs no root, NAME:ROOT for data on a server, or a FOLDER.  The
    layout of a FOLDER is recognized; a folder with an unknown layout is read in the generic one.
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
    if spec in SOURCES and spec != GENERIC and not Path(spec).exists():
        raise UserError(f"--data {spec} needs to know where the data set is; give --data {spec}=FOLDER")
    return replace(config, dataset=recognize(spec), root=spec)


def recognize(folder: str) -> str:
    """Name of the data set whose layout a folder has, or else "folder"; raises a UserError if several layouts fit."""
    found = [name for name, row in SOURCES.items() if row.recognizes is not None and row.recognizes(Path(folder))]
    if len(found) > 1:
        raise UserError(f"{folder} looks like {' and '.join(found)}; choose one: --data {found[0]}={folder}")
    return found[0] if found else GENERIC
