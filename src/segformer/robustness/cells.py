"""Scores of a model on corrupted images (Sec. 4.4): the protocol of Cityscapes-C, on any data set."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np

from segformer.arrays import Array
from segformer.config import EvalConfig, check_choice, to_json
from segformer.data.dataset import DataSource, Sample, seed_of
from segformer.data.images import RGB, Decoding
from segformer.errors import UserError
from segformer.evaluation.evaluate import evaluate
from segformer.evaluation.metrics import Scores
from segformer.files import read_json, write_json
from segformer.inference.samples import check_classes
from segformer.models.interfaces import Network
from segformer.resumable import OnProgress
from segformer.robustness.corruptions import GROUPS, NAMES, SEVERITIES, corrupt, frost_files

log = logging.getLogger(__name__)

Cell = tuple[str, int]
CLEAN: Cell = ("clean", 0)
FORMAT_VERSION = 1  # of the cells; also of the corruptions: raise it where a change of them makes old cells wrong
NOISE_SEVERITIES = (1, 2, 3)  # that count in the mean of a noise, as for Cityscapes-C
DRAWN = "drawn"


@dataclass(frozen=True)
class Corrupted:
    """A sample whose image is corrupted when it is read; its mask stays what it is.

    The random numbers are a function of seed, corruption, severity and the sample's name.
    """

    sample: Sample
    corruption: str
    severity: int
    seed: int = 0
    frost: Path | None = None

    @property
    def name(self) -> str:
        """That of the sample."""
        return self.sample.name

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image (H, W, 3) uint8, corrupted at the size it is decoded at, and the mask."""
        image, mask = self.sample.read(decoding)
        key = (self.seed, self.severity, digest_number(self.corruption), digest_number(self.name))
        rng = np.random.default_rng(seed_of(*key))
        try:
            return corrupt(image, self.corruption, self.severity, rng, frost=self.frost), mask
        except ValueError as error:
            raise UserError(f"{self.name}: {error}") from error


@dataclass(frozen=True, eq=False)
class Robustness:
    """Scores on clean images and in each cell, a corruption at a severity; mIoU in 0-1."""

    clean: Scores
    cells: Mapping[Cell, Scores]
    setting: Mapping[str, Any]
    """What was measured: ``setting_of``."""

    @property
    def corruptions(self) -> tuple[str, ...]:
        """Those that were measured, in the order of Table 5."""
        return tuple(name for name in NAMES if any(name == corruption for corruption, _ in self.cells))

    @property
    def severities(self) -> tuple[int, ...]:
        """Those that were measured."""
        return tuple(sorted({severity for _, severity in self.cells}))

    def counted(self, corruption: str) -> tuple[int, ...]:
        """Severities that count in the mean: all, but only 1 to 3 for noise."""
        allowed = NOISE_SEVERITIES if corruption in GROUPS["noise"] else SEVERITIES
        return tuple(severity for severity in allowed if (corruption, severity) in self.cells)

    def miou(self, corruption: str) -> float:
        """Mean over the severities that count; NaN where none of them was measured."""
        return mean(self.cells[corruption, severity].miou for severity in self.counted(corruption))

    def group_miou(self, group: str) -> float:
        """Mean over the corruptions of a group that were measured."""
        return mean(self.miou(name) for name in GROUPS[group] if name in self.corruptions)

    @property
    def corrupted_miou(self) -> float:
        """Mean over all corruptions that were measured."""
        return mean(self.miou(name) for name in self.corruptions)

    def retained(self, miou: float) -> float:
        """Share of the clean mIoU; NaN where that is 0."""
        return miou / self.clean.miou if self.clean.miou > 0 else float("nan")

    def retained_iou(self, corruption: str) -> Array:
        """Share of each class's clean IoU that is left on average; NaN where a class has none.  -> (K,)"""
        scores = [self.cells[corruption, severity] for severity in self.counted(corruption)]
        if not scores:
            return np.full(len(self.clean.classes), np.nan)
        clean = np.where(self.clean.iou > 0, self.clean.iou, np.nan)
        return np.asarray(np.mean([score.iou for score in scores], axis=0) / clean)

    def to_json(self) -> Mapping[str, Any]:
        """Return the figures; the cells' confusion matrices are kept beside them, cell by cell."""
        return {
            "setting": self.setting,
            "clean": rounded(self.clean.miou),
            "corrupted": rounded(self.corrupted_miou),
            "retained": rounded(self.retained(self.corrupted_miou)),
            "groups": {group: rounded(self.group_miou(group)) for group in GROUPS},
            "corruptions": {name: self._figures(name) for name in self.corruptions},
        }

    def _figures(self, name: str) -> Mapping[str, Any]:
        by_severity = {str(s): rounded(self.cells[name, s].miou) for s in self.severities if (name, s) in self.cells}
        classes = zip(self.clean.classes, self.retained_iou(name), strict=True)
        return {
            "mIoU": rounded(self.miou(name)),
            "mean over severities": list(self.counted(name)),
            "retained": rounded(self.retained(self.miou(name))),
            "severities": by_severity,
            "retained IoU": {label: rounded(share) for label, share in classes},
        }


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
    corruptions: Sequence[str] = NAMES,
    severities: Sequence[int] = SEVERITIES,
    out: Path | None = None,
    progress: OnProgress | None = None,
    note: Callable[[str], None] = log.info,
) -> Robustness:
    """Evaluate a model on clean images and on each corruption at each severity.

    Each cell is written to ``out``/cells as soon as it is known, and read from there the next time; a folder with
    cells of another model, other data or another protocol is a UserError.  ``frost`` as in ``corrupt``.
    ``progress`` is called with (images done, of how many) over all cells that are not there yet; ``note`` with what a
    user should know.  Raises a UserError where the model takes raw channels or has other classes than the data.
    """
    wanted = cells_of(corruptions, severities)
    check_model(model, source)
    samples = source.samples(split)[:limit]
    store = Store(out, setting_of(model, source, samples, split, config or model.card.eval, seed, frost))
    known = store.read(wanted)
    if known:
        note(f"{len(known)} of {len(wanted)} cells found in {out}")
    missing = [cell for cell in wanted if cell not in known]
    for done, cell in enumerate(missing):
        known[cell] = evaluate(
            model,
            corrupted(source, split, cell, seed, frost),
            split,
            config=config,
            limit=limit,
            workers=workers,
            progress=shifted(progress, done, len(missing)),
        )
        store.write(cell, known[cell])
    return Robustness(known[CLEAN], {cell: known[cell] for cell in wanted if cell != CLEAN}, store.setting)


def cells_of(corruptions: Sequence[str], severities: Sequence[int]) -> list[Cell]:
    """Clean first, then as Table 5 orders them; raises a UserError for a name or a severity that there is not."""
    for name in corruptions:
        check_choice("corruption", name, NAMES)
    for severity in severities:
        if severity not in SEVERITIES:
            raise UserError(f"severities must be within 1 and 5, got {severity}")
    return [CLEAN, *product((name for name in NAMES if name in corruptions), sorted(set(severities)))]


def check_model(model: Network, source: DataSource) -> None:
    """Raise a UserError where the model does not take RGB, or has other classes than the data."""
    if model.card.preprocessing.pixels != "rgb":
        raise UserError(
            f"corruptions are defined for 8-bit RGB images, and this model takes {model.card.model.in_channels} raw "
            f"channels (preprocessing.pixels raw); measure a model with preprocessing.pixels rgb"
        )
    check_classes(model, source)


def corrupted(source: DataSource, split: str, cell: Cell, seed: int, frost: Path | None) -> DataSource:
    """Return a data set with one split, its images corrupted."""
    samples = source.samples(split)
    if cell == CLEAN:
        return source
    return replace(source, splits={split: [Corrupted(sample, *cell, seed, frost) for sample in samples]})


def shifted(progress: OnProgress | None, cells_done: int, num_cells: int) -> OnProgress | None:
    """Turn the progress over a cell's images into that over the images of all cells."""
    if progress is None:
        return None
    return lambda done, total: progress(cells_done * total + done, num_cells * total)


@dataclass(frozen=True)
class Store:
    """A folder of cells that were all measured in one setting; None keeps nothing."""

    folder: Path | None
    setting: Mapping[str, Any]

    def path(self, cell: Cell) -> Path:
        """Where a cell lies."""
        assert self.folder is not None
        return self.folder / "cells" / ("clean.json" if cell == CLEAN else f"{cell[0]}_{cell[1]}.json")

    def read(self, wanted: Sequence[Cell]) -> dict[Cell, Scores]:
        """Return the cells that are there; raises a UserError where they were measured in another setting."""
        if self.folder is None or not (self.folder / "cells").is_dir():
            return {}
        kept = self.folder / "setting.json"
        theirs = read_json(kept) if kept.is_file() else {}
        for key, ours in self.setting.items():
            if key not in theirs or theirs[key] != ours:
                raise UserError(
                    f"{self.folder} holds cells of another run: {key} is {theirs.get(key, 'unknown')} there and "
                    f"{ours} here; give another folder (--out), or remove this one"
                )
        return {cell: read_scores(self.path(cell)) for cell in wanted if self.path(cell).is_file()}

    def write(self, cell: Cell, scores: Scores) -> None:
        """Keep a cell."""
        if self.folder is None:
            return
        if not (self.folder / "setting.json").is_file():
            write_json(self.folder / "setting.json", self.setting)
        write_json(self.path(cell), scores.to_json())


def read_scores(path: Path) -> Scores:
    """Read what ``Scores.to_json`` gave; raises a UserError that names the file where it is something else."""
    values = read_json(path)
    try:
        return Scores(np.array(values["confusion"], dtype=np.int64), tuple(values["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: expected the scores of a cell, got other JSON; remove the file") from error


def setting_of(
    model: Network,
    source: DataSource,
    samples: Sequence[Sample],
    split: str,
    config: EvalConfig,
    seed: int,
    frost: Path | None,
) -> dict[str, Any]:
    """Return everything that the figures depend on, as JSON; what is large as a digest."""
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    card = model.card
    setting = {
        "format version": FORMAT_VERSION,
        "weights": model.fingerprint(),
        "model": to_json(card.model),
        "preprocessing": to_json(card.preprocessing),
        "protocol": to_json(config),
        "data": source.name,
        "split": split,
        "number of images": len(samples),
        "names of the images": digest_of(f"{sample.name}\n".encode() for sample in samples),
        "labels": digest_of([repr(source.classes).encode(), source.table.values.tobytes()]),
        "seed": seed,
        "frost": DRAWN
        if frost is None
        else f"photographs {digest_of(path.read_bytes() for path in frost_files(frost))}",
    }
    return cast("dict[str, Any]", json.loads(json.dumps(setting)))  # as it is read back: tuples become lists


def digest_of(parts: Iterable[bytes]) -> str:
    """Sixteen hexadecimal digits that are the same on every machine."""
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        total.update(part)
    return total.hexdigest()


def digest_number(text: str) -> int:
    """A number that stands for a text, the same on every machine."""
    return int(digest_of([text.encode()]), 16)


def mean(values: Iterable[float]) -> float:
    """Mean of the finite values; NaN of none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def rounded(value: float) -> float | None:
    """A figure for JSON, which has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None
