"""Data sets on the Hugging Face hub, whose rows have a column of images and a column of masks.

    owner/name or owner/name:config
    a folder written by save_to_disk, of parquet files, or in any other form that `datasets` reads

The names of the classes are read from id2label.json ({"0": "wall", ...}) or dataset.json beside the data.  Without
these files, the classes are counted in the masks.  The optional library `datasets` provides the rows; the images and
masks in the rows are decoded by the same code as image files.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, overload

from PIL import Image

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Size, default_palette
from segformer.data.dataset import DataSource, Pair, check_sizes
from segformer.data.decoding import decode, to_rgb
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import MAX_CLASSES, LabelTable
from segformer.data.masks import index_mask
from segformer.data.sources.description import (
    DESCRIPTION,
    MAX_ID,
    Classes,
    count_classes,
    read_description,
    unnamed_classes,
)
from segformer.data.sources.folder_pairs import VAL_PERCENT
from segformer.errors import UserError
from segformer.files import read_json

ID2LABEL = "id2label.json"
SAVED = ("dataset_dict.json", "state.json")  # written by save_to_disk
VAL_NAMES = ("val", "validation", "valid")
MASK_COLUMNS = (
    "label", "labels", "label_map", "labelmap", "mask", "masks", "annotation", "annotations", "annotated",
    "segmentation", "segmentations", "segmentation_mask", "segmentation_map", "semantic_segmentation", "semantic_mask",
    "seg_map", "ground_truth", "gt",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of encoded images in one split; each cell contains the image of one row."""

    split: str
    name: str
    rows: Any = field(repr=False)
    """A ``datasets.Dataset`` with only this column; each cell contains the bytes or the path of an image file."""

    @classmethod
    def from_rows(cls, split: str, name: str, rows: Any) -> "Column":
        """Select a column of a ``datasets.Dataset`` without decoding its images."""
        import datasets  # type: ignore[import-untyped]  # it has no annotations

        plain = rows.with_format(None).select_columns([name])
        return cls(split, name, plain.cast_column(name, datasets.Image(decode=False)))

    def cell_name(self, index: int) -> str:
        """Name of a cell in messages, such as train[17].mask."""
        return f"{self.split}[{index}].{self.name}"

    def cell(self, index: int) -> Mapping[str, Any] | None:
        """Return the "bytes" and the "path" of the image file in a cell, or None if the cell is empty."""
        cell = self.rows[index][self.name]
        return cell if cell and any(cell.values()) else None

    def decode(self, index: int, enough: Size | None = None) -> Image.Image:
        """Decode the image in a cell; raises a UserError that names the cell if it is empty, unreadable or damaged."""
        name = self.cell_name(index)
        cell = self.cell(index)
        if cell is None:
            raise UserError(f"{name}: expected an image, found nothing; remove the row")
        try:
            file = BytesIO(read_bytes(cell))
        except OSError as error:
            raise UserError(
                f"{name}: its file cannot be read ({error}); restore the file, or remove the row"
            ) from error
        return decode(file, name, enough)


def read_bytes(cell: Mapping[str, Any]) -> bytes:
    """Return the bytes in a cell, or else in the file whose path it contains (also in an archive or on the hub)."""
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    import fsspec  # type: ignore[import-untyped]  # it has no annotations

    with fsspec.open(cell["path"], "rb") as file:
        return bytes(file.read())


@dataclass(frozen=True)
class HubSample:
    """A row with an image and a mask, which are decoded only when the sample is read."""

    images: Column
    masks: Column
    index: int

    @property
    def name(self) -> str:
        """Split and row number, such as train[17]."""
        return f"{self.images.split}[{self.index}]"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image and the raw ids of its mask; raises a UserError that names the cell with a fault."""
        if decoding.pixels != "rgb":
            raise UserError(
                f"{self.name}: data sets on the hub are read as RGB, got preprocessing.pixels {decoding.pixels}; "
                f"save the data as a folder of images and masks"
            )
        image = to_rgb(self.images.decode(self.index, decoding.enough))
        mask = self.read_mask()
        cells = [Path(column.cell_name(self.index)) for column in (self.images, self.masks)]
        check_sizes(image, mask, Pair(self.name, *cells), decoding)
        return image, mask

    def read_mask(self) -> Array:
        """Decode only the mask, by the rules of ``masks.read_mask``.  -> (H, W) raw ids"""
        return index_mask(self.masks.decode(self.index), self.masks.cell_name(self.index))


@dataclass(frozen=True)
class HubSamples(Sequence[HubSample]):
    """Samples of a split, each created when it is requested."""

    images: Column
    masks: Column
    indices: Sequence[int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, item: int) -> HubSample: ...
    @overload
    def __getitem__(self, item: slice) -> "HubSamples": ...
    def __getitem__(self, item: int | slice) -> "HubSample | HubSamples":
        if isinstance(item, slice):
            return replace(self, indices=self.indices[item])
        return HubSample(self.images, self.masks, self.indices[item])

    def has_masks(self) -> bool:
        """Whether any row has a mask; the test split of a challenge may have none."""
        return any(map(self.masks.cell, self.indices))


def open_source(root: str) -> DataSource:
    """Open OWNER/NAME or OWNER/NAME:CONFIG on the hub, or a local copy if a folder of that name exists.

    Raises a UserError that names what is missing, and ModuleNotFoundError without ``datasets``.
    """
    place, config = locate(root)
    found = {split: open_split(place, split, rows) for split, rows in load(place, config).items()}
    labeled = {split: samples for split, samples in found.items() if samples.has_masks()}
    if not labeled:
        raise UserError(f"{root}: expected images with masks, found no masks in {', '.join(found) or 'it'}")
    notes = [f"{split} is left out: it has no masks" for split in found if split not in labeled]
    splits, more = name_splits(labeled)
    classes, counted = find_classes(place, splits)
    return DataSource(root, *classes, splits, (*notes, *more, *counted))


def locate(root: str) -> tuple[str, str | None]:
    """Split a root into (folder or id on the hub, configuration or None)."""
    if root and Path(root).is_dir():
        return root, None
    place, _, config = root.partition(":")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", place) and not (place and Path(place).is_dir()):
        raise UserError(f"no data set '{root}'; expected a folder, or owner/name[:config] on the hub")
    return place, config or None


def load(place: str, config: str | None) -> dict[str, Any]:
    """Return the ``datasets.Dataset`` of each split; data without named splits become "train"."""
    import datasets

    folder = Path(place)
    try:
        if not config and any((folder / name).is_file() for name in SAVED):
            found = datasets.load_from_disk(place)
        else:  # an absolute path is never taken for an id
            found = datasets.load_dataset(str(folder.resolve()) if folder.is_dir() else place, config)
    except Exception as error:  # the library, its readers and its HTTP clients share no base class
        reason = reason_of(error)
        if folder.is_dir():
            raise UserError(f"{place}: expected a data set that the library datasets can read ({reason})") from error
        raise UserError(
            f"no folder '{place}', and no data set of that name could be read from the hub ({reason}); "
            f"without a network, give a local folder"
        ) from error
    return dict(found) if isinstance(found, dict) else {str(found.split or "train").partition("[")[0]: found}


def reason_of(error: Exception) -> str:
    """Type and first line of an error, or of its cause if ``datasets`` only wraps another error."""
    import datasets

    wrapped = isinstance(error, datasets.exceptions.DatasetGenerationError)
    cause = error.__cause__ if wrapped and error.__cause__ else error
    first = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {first}".removesuffix(": ")


def open_split(place: str, split: str, rows: Any) -> HubSamples:
    """Return the samples of one split, a ``datasets.Dataset``; finds the image and the mask column."""
    image, mask = find_columns(place, rows.features)
    return HubSamples(Column.from_rows(split, image, rows), Column.from_rows(split, mask, rows), range(len(rows)))


def find_columns(place: str, features: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names (image column, mask column); if they are unclear, raises a UserError that lists all columns."""
    import datasets

    columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    masks = [name for name in columns if name.lower() in MASK_COLUMNS]
    if len(columns) != 2 or len(masks) != 1:
        found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        raise UserError(
            f"{place}: expected two columns of type Image, one of them named like a mask (label, mask, annotation, "
            f"segmentation, ...), found {found}; rename or cast them, and save a copy with save_to_disk"
        )
    (image,) = set(columns) - set(masks)
    return image, masks[0]


def name_splits(found: Mapping[str, HubSamples]) -> tuple[dict[str, HubSamples], list[str]]:
    """Return (splits, notes for the user); a single split called "validation" or "valid" is renamed "val".

    If "train" is the only split, a hash of the row numbers assigns about a fifth of its rows to "val".
    """
    held_out = [split for split in found if split in VAL_NAMES]
    splits = {"val" if [split] == held_out else split: samples for split, samples in found.items()}
    if "val" in splits:
        return splits, []
    if list(splits) != ["train"]:
        return splits, [f"no split val, only {', '.join(splits)}: choose the one to evaluate on with --data.val-split"]
    everything = splits["train"]
    val = [k for k in everything.indices if zlib.crc32(b"%d" % k) % 100 < VAL_PERCENT] or [0]
    train = sorted(set(everything.indices) - set(val))
    note = f"no split val: {len(val)} of {len(everything)} images are held out as val (by a hash of their numbers)"
    return {"train": replace(everything, indices=train), "val": replace(everything, indices=val)}, [note]


def find_classes(place: str, splits: Mapping[str, HubSamples]) -> tuple[Classes, list[str]]:
    """Return ((class names, palette, label table), notes for the user).

    The classes are read from id2label.json or dataset.json, or else counted in the masks.
    """
    if path := find_file(place, ID2LABEL):
        return read_id2label(path), []
    if path := find_file(place, DESCRIPTION):
        return read_description(path), []
    samples = [sample for part in splits.values() for sample in part]
    count = count_classes((sample.masks.cell_name(sample.index), sample.read_mask()) for sample in samples)
    note = f"no {ID2LABEL} found: {count} classes counted in the masks, class_0 ... class_{count - 1}"
    return unnamed_classes(count), [note]


def find_file(place: str, name: str) -> Path | None:
    """Return the path of a file beside the data, downloaded from the hub if necessary, or None if it does not exist."""
    if Path(place).is_dir():
        return Path(place, name) if Path(place, name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(place, name, repo_type="dataset"))
    except EntryNotFoundError:  # neither on the hub nor, without a network, in the cache
        return None


def read_id2label(path: Path) -> Classes:
    """Return (class names in order of their ids, palette, label table); the id 255 is ignored even if it has a name."""
    values = read_json(path)
    if not isinstance(values, dict) or not all(k.isdecimal() and isinstance(name, str) for k, name in values.items()):
        raise UserError(f'{path}: expected ids with their names, such as {{"0": "wall", "1": "sky"}}')
    names = {raw: values[key] for raw, key in sorted((int(key), key) for key in values) if raw != IGNORE_INDEX}
    if not 1 <= len(names) <= MAX_CLASSES or max(names) > MAX_ID:
        raise UserError(
            f"{path}: expected 1-{MAX_CLASSES} classes with ids from 0 to {MAX_ID}, got {len(names)} classes"
        )
    mapping = {raw: k for k, raw in enumerate(names)} | {IGNORE_INDEX: IGNORE_INDEX}
    table = LabelTable.from_mapping(mapping, size=max(mapping) + 1)
    return tuple(names.values()), default_palette(len(names)), table
