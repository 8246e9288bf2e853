"""COCO files of a generic folder: finds and opens one file per split, or one file for all images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segformer.config import default_palette
from segformer.data.dataset import DataSource
from segformer.data.label_table import LabelTable
from segformer.data.sources.coco import has_areas, is_coco, read_coco
from segformer.data.sources.color_masks import PALETTE_FILES
from segformer.data.sources.description import DESCRIPTION
from segformer.data.sources.folder_pairs import IMAGES, LISTED, hash_splits, list_splits
from segformer.errors import UserError
from segformer.files import read_json

if TYPE_CHECKING:
    from segformer.data.sources.polygons import PolygonPair

ALL = ""  # key of a COCO file whose name contains no split; it describes all images


def find_coco(folder: Path) -> tuple[dict[str, tuple[Path, Any]], list[str]]:
    """Return ({split or ALL: (path, parsed content)}, notes on JSON files that are left out).

    The files are in the folder itself or in annotations/.  The name of a file contains its split, such as
    instances_train.json; a file without a split in its name belongs to ALL.
    """
    found = [*sorted(folder.glob("*.json")), *sorted((folder / "annotations").glob("*.json"))]
    paths = [p for p in found if p.name not in (DESCRIPTION, *PALETTE_FILES) and not p.name.startswith(".")]
    known = (*list_splits(folder / IMAGES), *LISTED)
    grouped: dict[str, list[Path]] = {}
    for path in paths:
        grouped.setdefault(next((name for name in known if name in path.stem), ALL), []).append(path)
    if any(map(_is_named, paths)) and not any(map(_is_named, grouped.get(ALL, []))):
        grouped.pop(ALL, None)
    chosen = {split: file for split, group in grouped.items() if (file := choose_coco(group))}
    used = [path for path, _ in chosen.values()]
    ignored = ", ".join(path.name for path in paths if path not in used)
    return chosen, [f"masks are read from {', '.join(p.name for p in used)}, not from {ignored}"] if ignored else []


def choose_coco(paths: Sequence[Path]) -> tuple[Path, Any] | None:
    """Return (path, parsed content) of the COCO file among the JSON files of one split, or None if there is none.

    Files named instances... are preferred, then files with polygons.  Raises a UserError if several files remain.
    """
    named = [path for path in paths if _is_named(path)]
    parsed = ((path, read_json(path)) for path in named or paths)
    files = [(path, values) for path, values in parsed if named or is_coco(values)]
    if len(files) > 1:
        files = [(path, values) for path, values in files if has_areas(values)] or files
    if len(files) > 1:
        names = ", ".join(path.name for path, _ in files)
        raise UserError(
            f"{files[0][0].parent}: expected one COCO file for each split, got {names}; move all but one away, or "
            f"write the split (train, val) into each name"
        )
    return files[0] if files else None


def open_coco(folder: Path, files: Mapping[str, tuple[Path, Any]], notes: Sequence[str]) -> DataSource:
    """Open the images in images/<split>/ or images/ with one parsed COCO file per split, or with one for ALL."""
    found: dict[str, list[PolygonPair]] = {}
    classes: tuple[str, ...] = ()
    if ALL in files and len(files) > 1:
        raise UserError(f"{files[ALL][0]}: expected a split (train, val) in the file's name; rename or remove the file")
    for split, (path, values) in files.items():
        below = folder / IMAGES / split
        found[split], names = read_coco(path, values, below if below.is_dir() else folder / IMAGES)
        if classes and names != classes:
            raise UserError(
                f"{path}: expected the categories {', '.join(classes[1:])}, as in the file of another split, "
                f"got {', '.join(names[1:])}; export all splits with the same categories"
            )
        classes = names
    notes = [*notes, f"{len(classes)} classes from polygons: {', '.join(classes)}"]
    if ALL in found:
        found, more = hash_splits(found[ALL])
        notes += more
    table = LabelTable.identity(len(classes))
    return DataSource(str(folder), classes, default_palette(len(classes)), table, found, tuple(notes))


def _is_named(path: Path) -> bool:
    return path.name.startswith("instances")
