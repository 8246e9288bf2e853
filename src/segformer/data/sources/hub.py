"""Data sets in the form of the Hugging Face hub: rows with a column of images and a column of masks.

    owner/name or owner/name:config       a folder from save_to_disk, of parquet files, or another that `datasets` reads

The names of the classes are read from id2label.json ({"0": "wall", ...}) or dataset.json beside the data; without
them the classes are counted in the masks.  The optional library `datasets` finds the rows; what they hold is decoded
here, as files are.
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
from segformer.config import IGNORE_INDEX, Color, Size, default_palette
from segformer.data.dataset import MAX_CLASSES, DataSource, LabelTable, Pair, check_sizes
from segformer.data.images import RGB, Decoding, decode, index_mask, to_rgb
from segformer.data.sources.folder import DESCRIPTION, MAX_ID, VAL_PERCENT, count_classes, read_description
from segformer.errors import UserError
from segformer.files import read_json

ID2LABEL = "id2label.json"
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
VAL_NAMES = ("val", "validation", "valid")
MASK_COLUMNS = (
    "label", "labels", "label_map", "labelmap", "mask", "masks", "annotation", "annotations", "annotated",
    "segmentation", "segmentations", "segmentation_mask", "segmentation_map", "semantic_segmentation", "semantic_mask",
    "seg_map", "ground_truth", "gt",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of images of one split, as the library gives it."""

    split: str
    name: str
    rows: Any = field(repr=False)
    """A ``datasets.Dataset`` of this column only, whose cells hold the bytes or the path of a file."""

    @classmethod
    def of(cls, split: str, name: str, rows: Any) -> "Column":
        """Take a column out of a ``datasets.Dataset``, and leave the decoding of its cells to us."""
        import datasets  # type: ignore[import-untyped]  # it has no annotations

        plain = rows.with_format(None).select_columns([name])
        return cls(split, name, plain.cast_column(name, datasets.Image(decode=False)))

    def place(self, index: int) -> str:
        """What to call a cell in messages: train[17].mask."""
        return f"{self.split}[{index}].{self.name}"

    def cell(self, index: int) -> Mapping[str, Any] | None:
        """Return the "bytes" and the "path" of a cell's file; None: the cell is empty."""
        cell = self.rows[index][self.name]
        return cell if cell and any(cell.values()) else None

    def decode(self, index: int, enough: Size | None = None) -> Image.Image:
        """Decode a cell completely; raises a UserError that names it where it is empty, not to be had or damaged."""
        place, cell = self.place(index), self.cell(index)
        if cell is None:
            raise UserError(f"{place}: expected an image, found nothing; leave the row out")
        try:
            file = BytesIO(read_bytes(cell))
        except OSError as error:
            raise UserError(f"{place}: its file can not be read ({error}); restore it, or leave the row out") from error
        return decode(file, place, enough)


def read_bytes(cell: Mapping[str, Any]) -> bytes:
    """Return the file in a cell, or the one that it names: a path, or one into an archive or the hub."""
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    import fsspec  # type: ignore[import-untyped]  # it has no annotations

    with fsspec.open(cell["path"], "rb") as file:
        return bytes(file.read())


@dataclass(frozen=True)
class HubSample:
    """A row, not decoded yet."""

    images: Column
    masks: Column
    index: int

    @property
    def name(self) -> str:
        """Its split and its number there: train[17]."""
        return f"{self.images.split}[{self.index}]"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode both; raises a UserError that names the sample and what is wrong with it."""
        if decoding.pixels != "rgb":
            raise UserError(
                f"{self.name}: data sets on the hub are read as RGB, got preprocessing.pixels {decoding.pixels}; "
                f"write the data as a folder of images and masks"
            )
        image, mask = to_rgb(self.images.decode(self.index, decoding.enough)), self.read_mask()
        places = [Path(column.place(self.index)) for column in (self.images, self.masks)]
        check_sizes(image, mask, Pair(self.name, *places), decoding)
        return image, mask

    def read_mask(self) -> Array:
        """Decode the mask only, with the rules of ``images.read_mask``.  -> (H, W) raw ids"""
        return index_mask(self.masks.decode(self.index), self.masks.place(self.index))


@dataclass(frozen=True)
class HubSamples(Sequence[HubSample]):
    """Samples of a split, each made when it is asked for."""

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
        """Whether there is any: the test split of a challenge may have none."""
        return any(map(self.masks.cell, self.indices))


def open_source(root: str) -> DataSource:
    """Read OWNER/NAME or OWNER/NAME:CONFIG of the hub, or a local copy; what exists as a folder is read from there.

    Raises UserError that say what is missing, and ModuleNotFoundError without ``datasets``.
    """
    place, config = locate(root)
    found = {split: open_split(place, split, rows) for split, rows in load(place, config).items()}
    labelled = {split: samples for split, samples in found.items() if samples.has_masks()}
    if not labelled:
        raise UserError(f"{root}: expected images with masks, found none in {', '.join(found) or 'it'}")
    notes = [f"{split} is left out: it has no masks" for split in found if split not in labelled]
    splits, more = name_splits(labelled)
    classes, palette, table, counted = find_classes(place, splits)
    return DataSource(root, classes, palette, table, splits, (*notes, *more, *counted))


def locate(root: str) -> tuple[str, str | None]:
    """Return the folder or the id on the hub, and the configuration."""
    if root and Path(root).is_dir():
        return root, None
    place, _, config = root.partition(":")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", place) and not (place and Path(place).is_dir()):
        raise UserError(f"no data set '{root}'; expected a folder, or owner/name[:config] on the hub")
    return place, config or None


def load(place: str, config: str | None) -> dict[str, Any]:
    """Return the ``datasets.Dataset`` of each split; what was saved without splits is "train"."""
    import datasets

    folder = Path(place)
    try:
        if not config and any((folder / name).is_file() for name in SAVED):
            found = datasets.load_from_disk(place)
        else:  # an absolute path is never taken for an id
            found = datasets.load_dataset(str(folder.resolve()) if folder.is_dir() else place, config)
    except Exception as error:  # of the library, of its readers, or of whichever client carries its requests
        reason = reason_of(error)
        if folder.is_dir():
            raise UserError(f"{place}: expected a data set that the library datasets can read ({reason})") from error
        raise UserError(
            f"no folder '{place}', and the hub does not give a data set of that name ({reason}); "
            f"without a network give a local folder"
        ) from error
    return dict(found) if isinstance(found, dict) else {str(found.split or "train").partition("[")[0]: found}


def reason_of(error: Exception) -> str:
    """The kind of an error, and the first line of its message; of the cause where the library only says that it is."""
    import datasets

    wrapped = isinstance(error, datasets.exceptions.DatasetGenerationError)
    cause = error.__cause__ if wrapped and error.__cause__ else error
    first = next(iter(str(cause).strip().splitlines()), "")
    return f"{type(cause).__name__}: {first}".removesuffix(": ")


def open_split(place: str, split: str, rows: Any) -> HubSamples:
    """Return the samples in a ``datasets.Dataset``; raises a UserError where it does not have the two columns."""
    image, mask = find_columns(place, rows.features)
    return HubSamples(Column.of(split, image, rows), Column.of(split, mask, rows), range(len(rows)))


def find_columns(place: str, features: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the columns of images and of masks; raises a UserError that lists the columns there are."""
    import datasets

    columns = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    masks = [name for name in columns if name.lower() in MASK_COLUMNS]
    if len(columns) != 2 or len(masks) != 1:
        found = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        raise UserError(
            f"{place}: expected two columns of type Image, one of them a mask by its name (label, mask, annotation, "
            f"segmentation, ...), found {found}; rename or cast them, and save a copy with save_to_disk"
        )
    (image,) = set(columns) - set(masks)
    return image, masks[0]


def name_splits(found: Mapping[str, HubSamples]) -> tuple[dict[str, HubSamples], list[str]]:
    """Call the split to evaluate on val, and hold out a fifth of a lone train by a hash of each row's number."""
    held_out = [split for split in found if split in VAL_NAMES]
    splits = {"val" if [split] == held_out else split: samples for split, samples in found.items()}
    if "val" in splits:
        return splits, []
    if list(splits) != ["train"]:
        return splits, [f"no split val, only {', '.join(splits)}: say which to evaluate on with --data.val-split"]
    everything = splits["train"]
    val = [k for k in everything.indices if zlib.crc32(b"%d" % k) % 100 < VAL_PERCENT] or [0]
    train = sorted(set(everything.indices) - set(val))
    note = f"no split val: {len(val)} of {len(everything)} images are held out as val (by a hash of their numbers)"
    return {"train": replace(everything, indices=train), "val": replace(everything, indices=val)}, [note]


def find_classes(
    place: str, splits: Mapping[str, HubSamples]
) -> tuple[tuple[str, ...], tuple[Color, ...], LabelTable, list[str]]:
    """Classes, palette, label table, and notes for the user."""
    if path := find_file(place, ID2LABEL):
        return *read_id2label(path), []
    if path := find_file(place, DESCRIPTION):
        return *read_description(path), []
    samples = [sample for part in splits.values() for sample in part]
    count = count_classes((sample.masks.place(sample.index), sample.read_mask()) for sample in samples)
    names = tuple(f"class_{k}" for k in range(count))
    note = f"no {ID2LABEL} found: {len(names)} classes counted in the masks, {names[0]} ... {names[-1]}"
    return names, default_palette(len(names)), LabelTable.identity(len(names)), [note]


def find_file(place: str, name: str) -> Path | None:
    """Where a file beside the data lies, from the hub if need be; None: it has none."""
    if Path(place).is_dir():
        return Path(place, name) if Path(place, name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(place, name, repo_type="dataset"))
    except EntryNotFoundError:  # neither there nor, without a network, in the cache
        return None


def read_id2label(path: Path) -> tuple[tuple[str, ...], tuple[Color, ...], LabelTable]:
    """Classes in the order of their ids, palette, and label table; 255 is ignored even if it has a name."""
    values = read_json(path)
    if not isinstance(values, dict) or not all(k.isdecimal() and isinstance(name, str) for k, name in values.items()):
        raise UserError(f'{path}: expected ids with their names, such as {{"0": "wall", "1": "sky"}}')
    names = {raw: values[key] for raw, key in sorted((int(key), key) for key in values) if raw != IGNORE_INDEX}
    if not 1 <= len(names) <= MAX_CLASSES or max(names) > MAX_ID:
        raise UserError(f"{path}: expected 1-{MAX_CLASSES} classes with ids of 0-{MAX_ID}, got {len(names)}")
    mapping = {raw: k for k, raw in enumerate(names)} | {IGNORE_INDEX: IGNORE_INDEX}
    table = LabelTable.of(mapping, size=max(mapping) + 1)
    return tuple(names.values()), default_palette(len(names)), table
