"""Folders of images and index masks in the generic layout, a few pixels each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segformer.data.dataset import DataSource, Pair

CLASSES = ["road", "tree", "sky"]
PALETTE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def write_pair(folder: Path, place: str, ids: Sequence[int] = (0, 1, 2), suffix: str = ".jpg") -> None:
    """An image (2, N) at images/<place> and its mask, whose columns have the ids."""
    for part in ("images", "masks"):
        (folder / part / place).parent.mkdir(parents=True, exist_ok=True)
    mask = np.array([ids, ids])
    Image.new("RGB", (len(ids), 2)).save(folder / "images" / f"{place}{suffix}")
    Image.fromarray(mask.astype(np.uint8 if mask.max() < 256 else np.uint16)).save(folder / "masks" / f"{place}.png")


def write_description(folder: Path, **changes: Any) -> None:
    values = {"classes": CLASSES, "palette": PALETTE, "ignore_index": 255} | changes
    (folder / "dataset.json").write_text(json.dumps(values))


def names(source: DataSource) -> dict[str, list[str]]:
    return {split: [sample.name for sample in samples] for split, samples in source.splits.items()}


def pairs(stems: Sequence[str]) -> list[Pair]:
    return [Pair(stem, Path(f"images/{stem}.jpg"), Path(f"masks/{stem}.png")) for stem in stems]
