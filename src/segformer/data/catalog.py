"""The data sets by name, and what ``--data`` means."""

from collections.abc import Callable
from dataclasses import replace

from segformer.config import DataConfig, check_choice
from segformer.data import folder, toytown
from segformer.data.dataset import DataSource, relabel

DATASETS: dict[str, Callable[[str], DataSource]] = {"folder": folder.open_source, "toytown": toytown.open_source}


def open_data(data: DataConfig | str) -> DataSource:
    """Find the samples of a data set, given as ``--data`` takes it or as a config.

    Raises FileNotFoundError or ValueError that say what is missing.

    >>> len(open_data("toytown").samples("val"))
    60
    """
    config = with_data(DataConfig(), data) if isinstance(data, str) else data
    check_choice("data.dataset", config.dataset, DATASETS)
    if config.masks and config.dataset != "folder":
        raise ValueError(f"data.masks is for generic folders; {config.dataset} has masks of its own")
    if config.dataset == "folder":
        source = folder.open_source(config.root, config.masks)
    else:
        source = DATASETS[config.dataset](config.root)
    return relabel(source, config.relabel) if config.relabel else source


def with_data(config: DataConfig, spec: str) -> DataConfig:
    """Point a config at what ``--data`` says: NAME=ROOT, NAME, or a FOLDER in the generic layout."""
    name, separator, root = spec.partition("=")
    if separator and "/" not in name:
        check_choice("--data", name, DATASETS)
        return replace(config, dataset=name, root=root)
    if spec in DATASETS and spec != "folder":
        return replace(config, dataset=spec, root="")
    return replace(config, dataset="folder", root=spec)
