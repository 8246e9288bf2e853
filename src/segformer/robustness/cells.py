"""Measure a model on corrupted images (Sec. 4.4) with the protocol of Cityscapes-C, on any data set.

A cell is one corruption at one severity; the clean images are a cell, too.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from segformer.config import EvalConfig
from segformer.data.dataset import DataSource, Sample
from segformer.errors import UserError
from segformer.evaluation.evaluate import score
from segformer.evaluation.metrics import Scores
from segformer.inference.samples import check_classes
from segformer.json_config import to_json
from segformer.models.interfaces import Network
from segformer.resumable import REMEDY, OnProgress, Store
from segformer.robustness.corruptions import SEVERITIES, corruption_names
from segformer.robustness.result import CLEAN, Cell, Robustness
from segformer.robustness.sample import CorruptedSample, short_digest
from segformer.robustness.weather import find_photographs
from segformer.validation import check_choice

log = logging.getLogger(__name__)

FORMAT_VERSION = 1  # raise it when a change of the code makes stored cells wrong
WORK = "robustness measurement"
DRAWN = "drawn"  # value of the setting "frost" without photographs
OLD_SETTING = "setting.json"  # written by version 0.1


def robustness(
    model: Network,
    source: DataSource,
    split: str = "val",
    *,
    config: EvalConfig | None = None,
    limit: int | None = None,
    workers: int = 2,
    seed: int = 0,
    frost: Path | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    out: Path | None = None,
    progress: OnProgress | None = None,
    note: Callable[[str], None] = log.info,
) -> Robustness:
    """Evaluate a model on clean images and on images with each corruption (None: all) at each severity.

    ``limit`` restricts the split to its first images; ``frost`` is a folder of photographs as for ``corrupt``.  The
    scores of each cell are stored in ``out``/cells as soon as they are measured, and a later call reads them there.
    ``progress`` is called with the number of images done and their total over all cells still to be measured; ``note``
    is called with a message for the user.  Raises a UserError if the model takes raw channels, if its classes differ
    from those of the data, or if ``out`` contains cells of another model, data set or protocol.
    """
    import_module("cv2")  # a missing package should be an error here, not in a worker process
    wanted = choose_cells(corruption_names() if corruptions is None else corruptions, severities)
    check_model(model, source)
    samples = source.samples(split)[:limit]
    store = open_store(out, setting_of(model, source, samples, split, config or model.card.eval, seed, frost))
    known = {cell: read_scores(store, cell) for cell in wanted if store.has(file_name(cell))}
    if known:
        note(f"{len(known)} of {len(wanted)} measurements are already in {out} and are not repeated")
    missing = [cell for cell in wanted if cell not in known]
    for done, cell in enumerate(missing):
        known[cell] = score(
            model,
            corrupted_source(source, split, cell, seed, frost),
            split,
            config=config,
            limit=limit,
            workers=workers,
            progress=over_all_cells(progress, done, len(missing)),
        )
        store.save_json(file_name(cell), known[cell].to_json())
    return Robustness(known[CLEAN], {cell: known[cell] for cell in wanted if cell != CLEAN}, store.identity)


def choose_cells(corruptions: Sequence[str], severities: Sequence[int]) -> list[Cell]:
    """Return the clean cell, then the other cells in the order of Table 5.

    Raises a UserError for an unknown corruption or severity.
    """
    known = corruption_names()
    for name in corruptions:
        check_choice("corruption", name, known)
    for severity in severities:
        if severity not in SEVERITIES:
            raise UserError(f"severities must be from 1 to 5, got {severity}")
    return [CLEAN, *product((name for name in known if name in corruptions), sorted(set(severities)))]


def check_model(model: Network, source: DataSource) -> None:
    """Raise a UserError if the model does not take RGB images, or if its classes differ from those of the data."""
    if model.card.preprocessing.pixels != "rgb":
        raise UserError(
            f"corruptions are defined for 8-bit RGB images, but this model takes {model.card.model.in_channels} raw "
            f"channels; measure a model with preprocessing.pixels rgb"
        )
    check_classes(model, source)


def corrupted_source(source: DataSource, split: str, cell: Cell, seed: int, frost: Path | None) -> DataSource:
    """Return the data set with only this split and its images corrupted; for the clean cell, the unchanged data set."""
    if cell == CLEAN:
        return source
    samples = [CorruptedSample(sample, *cell, seed, frost) for sample in source.samples(split)]
    return replace(source, splits={split: samples})


def over_all_cells(progress: OnProgress | None, cells_done: int, num_cells: int) -> OnProgress | None:
    """Return a callback for the progress within one cell; it reports the progress over all cells to ``progress``."""
    if progress is None:
        return None
    return lambda done, total: progress(cells_done * total + done, num_cells * total)


def setting_of(
    model: Network,
    source: DataSource,
    samples: Sequence[Sample],
    split: str,
    config: EvalConfig,
    seed: int,
    frost: Path | None,
) -> dict[str, Any]:
    """Return everything that the scores depend on, as JSON values; a digest stands for each large value."""
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    photographs = () if frost is None else find_photographs(frost)
    return {
        "format_version": FORMAT_VERSION,
        "weights": model.fingerprint(),
        "model": to_json(model.card.model),
        "preprocessing": to_json(model.card.preprocessing),
        "protocol": to_json(config),
        "data": source.name,
        "split": split,
        "num_images": len(samples),
        "image_names": short_digest(f"{sample.name}\n".encode() for sample in samples),
        "labels": short_digest([repr(source.classes).encode(), source.table.values.tobytes()]),
        "seed": seed,
        "frost": f"photographs {short_digest(path.read_bytes() for path in photographs)}" if photographs else DRAWN,
    }


def open_store(out: Path | None, setting: dict[str, Any]) -> Store:
    """Open the folder of stored cells; raises a UserError if they are of another setting or of version 0.1."""
    if out is None:
        return Store(None, setting, work=WORK)
    if (out / OLD_SETTING).is_file():
        raise UserError(f"{out} has a measurement of version 0.1 ({OLD_SETTING}), which cannot be resumed; {REMEDY}")
    return Store(out / "cells", setting, work=WORK)


def file_name(cell: Cell) -> str:
    """Return the name of the file that stores the scores of a cell."""
    return "clean.json" if cell == CLEAN else f"{cell[0]}_{cell[1]}.json"


def read_scores(store: Store, cell: Cell) -> Scores:
    """Read the stored scores of a cell; if the file is damaged, a UserError names it."""
    values = store.load_json(file_name(cell))
    try:
        return Scores(np.array(values["confusion"], dtype=np.int64), tuple(values["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        path = store.path(file_name(cell))
        raise UserError(
            f"{path}: expected the scores of one corruption and severity, got other JSON; remove the file"
        ) from error
