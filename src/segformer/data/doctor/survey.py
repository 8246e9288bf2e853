"""Survey a data set: list its samples before any file is opened."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from segformer.config import DataConfig
from segformer.data.dataset import DataSource, Pair
from segformer.data.doctor.folder_survey import survey_folder
from segformer.data.doctor.items import Item, Survey
from segformer.data.sources.catalog import open_data, with_data
from segformer.data.sources.folder_pairs import LISTED
from segformer.errors import UserError

Data = str | Path | DataConfig | DataSource
"""A data set: a folder, a value of ``--data``, a DataConfig, or a DataSource (an opened data set)."""

SURVEYS: dict[str, Callable[[str], Survey]] = {"folder": survey_folder}
"""For each data set name, the function that surveys its root file by file, so that one fault does not hide others."""


def survey(data: Data) -> Survey:
    """List the samples of a data set; raises a UserError if the data set cannot be opened at all."""
    if isinstance(data, DataSource):
        return survey_source(data)
    config = as_config(data)
    by_files = SURVEYS.get(config.dataset)
    if by_files is None:
        return survey_source(open_data(config))
    with suppress(UserError, OSError):  # the survey of the files reports what is wrong
        source = open_data(config)
        samples = [sample for part in source.splits.values() for sample in part]
        if config.masks or config.relabel or not all(isinstance(sample, Pair) for sample in samples):
            return survey_source(source)  # masks in another folder, or computed from colors or polygons when read
    return by_files(config.root)


def survey_source(source: DataSource) -> Survey:
    """List the samples of an opened data set."""
    items = []
    for split, samples in source.splits.items():
        for sample in samples:
            if isinstance(sample, Pair):
                items.append(Item(split, sample.name, sample.image, sample.mask if sample.mask.is_file() else None))
            else:
                items.append(Item(split, sample.name, drawn=sample))
    return Survey(source.name, items, source.classes, source.palette, source.table, notes=source.notes)


def as_config(data: Data) -> DataConfig:
    """Return the config of a data set; a DataSource gets the default config, with the usual names of splits."""
    if isinstance(data, DataConfig):
        return data
    return DataConfig() if isinstance(data, DataSource) else with_data(DataConfig(), str(data))


def in_order(items: Sequence[Item]) -> list[Item]:
    """Sort items by split: train, val, test, then all others."""
    return sorted(items, key=lambda item: LISTED.index(item.split) if item.split in LISTED else len(LISTED))
