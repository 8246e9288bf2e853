"""A look at a data set before any training: what is wrong, what is in it, and two sheets of pictures.

A folder in the generic layout is read file by file, so that one fault does not hide the others.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from segformer.config import IGNORE_INDEX, DataConfig
from segformer.data.dataset import DataSource
from segformer.data.doctor.faults import Finding, Look, class_of, find_faults, number, shown
from segformer.data.doctor.survey import (
    Data,
    as_config,
    counted_classes,
    is_raw,
    look_at,
    split_rank,
    survey_config,
    survey_source,
)
from segformer.data.label_table import LabelTable
from segformer.data.sources.description import DESCRIPTION
from segformer.data.sources.folder_pairs import IMAGES, MASKS

Progress = Callable[[int, int], None]

COMMAND = "    "  # before a line of the report that is to be copied
RARE = 0.01  # of the labelled pixels
WEIGHTS = (0.1, 10.0)
RARE_CROP = 0.5  # suggested where there are rare classes


@dataclass(frozen=True)
class Split:
    """What a split holds; the pixel counts are empty where nothing was decoded."""

    images: int
    sizes: dict[str, int]
    """Images of each height x width, most frequent first."""
    channels: dict[str, int]
    pixels: tuple[int, ...]
    """Of each class."""
    ignored: int
    """Pixels."""

    def shares(self) -> tuple[float, ...]:
        """Share of each class in the labelled pixels."""
        return tuple(count / max(sum(self.pixels), 1) for count in self.pixels)


@dataclass(frozen=True)
class Diagnosis:
    """What ``inspect`` found."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    findings: tuple[Finding, ...]
    """Errors first."""
    class_weights: tuple[float, ...] | None
    """1 / sqrt(share in the training split), of mean 1; None where it is not known."""
    rare: tuple[str, ...]
    """Classes with less than 1 % of the training split's labelled pixels."""
    mean: tuple[float, ...]
    """Of each channel in the training split; empty where nothing was decoded, or the images have unlike channels."""
    std: tuple[float, ...]
    raw: bool
    """Whether the training images would lose by being read as 8-bit RGB."""
    notes: tuple[str, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that would stop the training, or make it learn from wrong labels."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ready(self) -> bool:
        """Whether there is no error; warnings are for the owner of the data to judge."""
        return not self.errors

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Options of ``segformer train``."""
        found = []
        if self.class_weights is not None:
            found.append("--train.class-weights " + " ".join(f"{weight:.2f}" for weight in self.class_weights))
        if self.rare:
            found.append(f"--data.rare-crop {RARE_CROP}")
        if self.raw and self.mean:
            statistics = " ".join(f"--preprocessing.{name} {figures(getattr(self, name))}" for name in ("mean", "std"))
            found.append(f"--model.in-channels {len(self.mean)} --preprocessing.pixels raw {statistics}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return asdict(self) | {"ready": self.ready, "suggestions": list(self.suggestions)}


def inspect(data: Data, *, cheap: bool = False, progress: Progress | None = None) -> Diagnosis:
    """Look at every file of a data set: a folder, what ``--data`` takes, a config or an open source.

    ``cheap`` opens files without decoding them: pairing, headers, sizes and modes only.  Raises UserError
    where the folder is missing; all else is a finding.
    """
    config = as_config(data)
    survey = survey_source(data) if isinstance(data, DataSource) else survey_config(config)
    looks = []
    for done, item in enumerate(sorted(survey.items, key=split_rank), start=1):
        looks.append(look_at(item, cheap))
        if progress is not None:
            progress(done, len(survey.items))
    counted = survey.table is None
    classes, table = (counted_classes(looks)) if counted else (survey.classes, survey.table)
    splits = {name: summary(looks, name, table, len(classes)) for name in dict.fromkeys(k.split for k in looks)}
    findings = find_faults(looks, table, classes, counted)
    if not any(finding.kind == "layout" for finding in survey.findings):
        if not isinstance(data, DataSource):
            findings += missing_splits(config, splits)
        if counted and table is not None and len(classes) < 2 and not any(f.kind == "binary_mask" for f in findings):
            problem = "expected at least two classes in the masks, found only 0 and 255, which is ignored"
            findings.append(
                Finding("layout", "error", (), problem, f"label the masks, or describe them in {DESCRIPTION}")
            )
    lists = [f"{name}.txt" for name in splits if (Path(survey.name) / f"{name}.txt").is_file()]
    if lists:
        also = f"; what is removed must leave {', '.join(lists)} too"
        findings = [replace(f, fix=f.fix + also) if f.command.startswith("rm ") else f for f in findings]
    findings = sorted([*survey.findings, *findings], key=lambda finding: finding.severity)
    weights, rare = balance(splits.get(config.train_split), classes)
    mean, std = statistics_of([look for look in looks if look.split == config.train_split])
    raw = any(map(is_raw, splits[config.train_split].channels)) if config.train_split in splits else False
    return Diagnosis(
        survey.name, tuple(classes), splits, tuple(findings), weights, rare, mean, std, raw, notes=survey.notes
    )


def summary(looks: Sequence[Look], split: str, table: LabelTable | None, num_classes: int) -> Split:
    """Count what a split holds."""
    own = [look for look in looks if look.split == split and look.image]
    sizes = Counter(shown(look.size) for look in own if look.size).most_common()
    kinds = Counter(look.channels for look in own if look.channels).most_common()
    if table is None or not any(look.ids is not None for look in own):
        return Split(len(own), dict(sizes), dict(kinds), (), 0)
    pixels = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
    for look in own:
        if look.ids is not None and look.counts is not None:
            classes = class_of(table, look.ids)
            np.add.at(pixels, classes[classes >= 0], look.counts[classes >= 0])
    return Split(len(own), dict(sizes), dict(kinds), tuple(pixels[:num_classes].tolist()), int(pixels[IGNORE_INDEX]))


def statistics_of(looks: Sequence[Look]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels; empty where images have unlike channels."""
    moments = [look.moments for look in looks if look.moments is not None]
    if len({parts.shape for parts in moments}) != 1:
        return (), ()
    count, total, squares = np.sum(moments, axis=0)
    mean = total / count
    std = np.sqrt((squares / count - mean**2).clip(1e-12))
    return tuple(mean.tolist()), tuple(std.tolist())


def figures(values: Sequence[float]) -> str:
    """Numbers with five digits that count, between spaces."""
    return " ".join(f"{value:.5g}" for value in values)


def missing_splits(config: DataConfig, splits: dict[str, Split]) -> list[Finding]:
    """Splits that a training asks for and that are not there, or empty."""
    wanted = {"train": config.train_split, "val": config.val_split}
    return [
        Finding(
            "layout",
            "error",
            (),
            f"no images in the split '{name}'; found {', '.join(splits) or 'none'}",
            f"add {IMAGES}/{name} and {MASKS}/{name}, or name another: --data.{option}-split",
        )
        for option, name in wanted.items()
        if name not in splits or not splits[name].images
    ]


def balance(split: Split | None, classes: Sequence[str]) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Weights 1 / sqrt(share) with mean 1 (a class that never occurs has 1), and the names of rare classes."""
    if split is None or not sum(split.pixels) or len(split.pixels) < 2:
        return None, ()
    rare = tuple(name for name, share in zip(classes, split.shares(), strict=True) if 0 < share < RARE)
    return balanced_weights(split.pixels), rare


def balanced_weights(pixels: Sequence[int]) -> tuple[float, ...]:
    """1 / sqrt(share of the pixels) of each class, with mean 1; a class that never occurs has 1.

    >>> balanced_weights([90, 10, 0])
    (0.5, 1.5, 1.0)
    """
    counts = np.array(pixels, dtype=np.float64)
    occurs = counts > 0
    weights = np.ones(len(counts))
    raw = 1 / np.sqrt(counts[occurs])
    weights[occurs] = (raw / raw.mean()).clip(*WEIGHTS).round(2)
    return tuple(weights.tolist())


def show(diagnosis: Diagnosis, console: Console, costs: Sequence[str] = ()) -> None:
    """Print what is in the data, what it will cost, what is wrong and how to fix it.

    The last line is ``ready`` where nothing stops a training.
    """
    console.print(split_table(diagnosis))
    if any(split.pixels for split in diagnosis.splits.values()):
        console.print(class_table(diagnosis))
    for line in (*costs, *report_lines(diagnosis)):
        text = line.lstrip()
        if not text or line.startswith(COMMAND):  # on one line, to be copied
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(Padding(Text(text), (0, 0, 0, len(line) - len(text)), expand=False))


def split_table(diagnosis: Diagnosis) -> Table:
    """Rows of splits."""
    table = Table(title=diagnosis.name, title_justify="left")
    for heading in ("split", "images", "size (height x width)", "channels", "ignored"):
        table.add_column(heading, justify="right" if heading in ("images", "ignored") else "left")
    for name, split in diagnosis.splits.items():
        sizes = list(split.sizes.items())
        listed = ", ".join(size if len(sizes) == 1 else f"{size} ({times})" for size, times in sizes[:3])
        rest = f", {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
        pixels = sum(split.pixels) + split.ignored
        ignored = f"{100 * split.ignored / pixels:.1f} %" if pixels else "-"
        table.add_row(name, str(split.images), listed + rest, ", ".join(split.channels), ignored)
    return table


def class_table(diagnosis: Diagnosis) -> Table:
    """Rows of classes: share of the labelled pixels of each split, and the suggested weight."""
    splits = {name: split.shares() for name, split in diagnosis.splits.items() if split.pixels}
    table = Table(title="share of the labelled pixels, %", title_justify="left")
    table.add_column("class")
    for name in (*splits, "weight"):
        table.add_column(name, justify="right")
    table.add_column("")
    for k, name in enumerate(diagnosis.classes):
        weight = "-" if diagnosis.class_weights is None else f"{diagnosis.class_weights[k]:.2f}"
        shares = [f"{100 * values[k]:.2f}" if values[k] else "-" for values in splits.values()]
        table.add_row(name, *shares, weight, "rare" if name in diagnosis.rare else "")
    return table


def report_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Notes, suggestions, then every finding with its files and its fix, and the verdict."""
    yield from (f"note: {note}" for note in diagnosis.notes)
    if diagnosis.mean:
        yield f"channels: mean {figures(diagnosis.mean)}, standard deviation {figures(diagnosis.std)}"
    if diagnosis.suggestions:
        yield "suggested for segformer train (classes weighted by 1 / sqrt(share), rare ones cropped around):"
        yield from (f"{COMMAND}{option}" for option in diagnosis.suggestions)
    for finding in diagnosis.findings:
        yield ""
        yield f"{finding.severity}: {relative(finding.problem, diagnosis.name)}"
        if finding.files:
            more = f" and {len(finding.files) - 3} more" if len(finding.files) > 3 else ""
            yield f"  in: {relative(', '.join(finding.files[:3]), diagnosis.name)}{more}"
        yield f"  fix: {finding.fix}"
        if finding.command:
            yield f"{COMMAND}{finding.command}"
    yield ""
    warned = len(diagnosis.findings) - len(diagnosis.errors)
    if diagnosis.ready:
        yield "ready"
    else:
        also = f" and look at {number(range(warned), 'warning')}" if warned else ""
        yield f"not ready: fix {number(diagnosis.errors, 'error')}{also}, then inspect again"


def relative(text: str, root: str) -> str:
    """Leave the data folder's name out of paths."""
    return text.replace(f"{root.rstrip('/')}/", "")
