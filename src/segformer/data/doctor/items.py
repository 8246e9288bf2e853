"""Samples of a data set, listed before any file is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segformer.config import Color
from segformer.data.dataset import Sample
from segformer.data.doctor.findings import Finding
from segformer.data.label_table import LabelTable


@dataclass(frozen=True)
class Item:
    """A listed sample: the paths of its two files, or, if it has no such files, the sample itself as ``drawn``."""

    split: str
    name: str
    image: Path | None = None
    mask: Path | None = None
    expected_mask: Path | None = None
    """Path of the PNG mask that was expected, if a mask in an unsuitable format was found instead; otherwise None."""
    drawn: Sample | None = None
    """The sample itself if it is not a pair of files; otherwise None."""


@dataclass(frozen=True)
class Survey:
    """A data set whose samples have been listed, but not read."""

    name: str
    items: Sequence[Item]
    classes: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    table: LabelTable | None = None
    """Table of the classes; None: the classes have to be counted in the masks."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
