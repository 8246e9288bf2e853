"""Samples of a data set as listed, before any file is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segformer.config import Color
from segformer.data.dataset import Sample
from segformer.data.doctor.findings import Finding
from segformer.data.label_table import LabelTable


@dataclass(frozen=True)
class Item:
    """A sample as listed: files that exist, or a sample to be drawn."""

    split: str
    name: str
    image: Path | None = None
    mask: Path | None = None
    expected_mask: Path | None = None
    """Where the mask should be, if it is elsewhere."""
    drawn: Sample | None = None


@dataclass(frozen=True)
class Survey:
    """A data set as listed."""

    name: str
    items: Sequence[Item]
    classes: tuple[str, ...] = ()
    palette: tuple[Color, ...] = ()
    table: LabelTable | None = None
    """None: the classes are to be counted in the masks."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
