"""A checkpoint format as another project could add it to the table: the names of the authors behind a prefix."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from segformer.checkpoints.format import Format
from segformer.checkpoints.formats.nvlabs import SEGMENTATION
from segformer.checkpoints.key_table import KeyTable, Row, State, write
from segformer.config import ModelCard


def writer(table: KeyTable) -> Callable[[State, ModelCard, Path], None]:
    def write_added(state: State, card: ModelCard, folder: Path) -> None:
        contents = {"meta": {"CLASSES": list(card.classes)}, "state_dict": write(table, state)}
        torch.save(contents, folder / "added.pth")

    return write_added


def renamed(row: Row) -> Row:
    return replace(row, theirs=tuple(f"net.{name}" for name in row.their_names))


TABLE = KeyTable(
    name="the added format",
    rows=tuple(map(renamed, SEGMENTATION.rows)),
    signature=("net.backbone.patch_embed1.proj.weight",),
)


ADDED = Format(tables=(TABLE,), write=writer(TABLE))
