"""Join several data sets into one, and rename, merge or ignore their classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX
from segformer.data.dataset import DataSource, Sample, mask_name
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import LabelTable
from segformer.errors import UserError
from segformer.validation import check_choice


@dataclass(frozen=True)
class Translated:
    """A sample whose mask is translated to the classes of a joined data set."""

    sample: Sample
    table: LabelTable = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the original sample."""
        return self.sample.name

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return the image and its mask of class indices.  -> (H, W, C), (H, W) uint8"""
        image, mask = self.sample.read(decoding)
        return image, self.table.apply(mask, mask_name(self.sample))


def join(sources: Sequence[DataSource]) -> DataSource:
    """Join data sets split by split; the result has the classes of the first data set; others are matched by name.

    Raises a UserError if another data set has a class that the first one does not have.
    """
    first = sources[0]
    splits: dict[str, list[Sample]] = {}
    for source in sources:
        table = table_into(source, first)
        for split, samples in source.splits.items():
            splits.setdefault(split, []).extend(Translated(sample, table) for sample in samples)
    names = " + ".join(source.name for source in sources)
    notes = tuple(f"{source.name}: {note}" for source in sources for note in source.notes)
    return DataSource(names, first.classes, first.palette, LabelTable.identity(len(first.classes)), splits, notes)


def table_into(source: DataSource, target: DataSource) -> LabelTable:
    """Return the label table that maps the raw ids of ``source`` to the classes of ``target``, matched by name."""
    for name in source.classes:
        if name not in target.classes:
            raise UserError(
                f"{source.name} has the class '{name}', which {target.name} does not have (it has "
                f"{', '.join(target.classes[:4])}, ...); data.relabel can rename the classes of {target.name}"
            )
    return source.table.with_classes([target.classes.index(name) for name in source.classes])


def relabel(source: DataSource, changes: Sequence[tuple[str, str]]) -> DataSource:
    """Rename classes.  Classes with the same new name are merged; a class with an empty new name is ignored.

    ``changes`` are pairs (class, new name).  Raises a UserError if a class is unknown or fewer than two classes remain.
    """
    renamed = dict(zip(source.classes, source.classes, strict=True))
    for old, new in changes:
        check_choice("data.relabel", old, source.classes)
        renamed[old] = new
    classes = tuple(dict.fromkeys(name for name in renamed.values() if name))
    if len(classes) < 2:
        raise UserError(f"data.relabel must leave at least two classes, got {', '.join(classes) or 'none'}")
    index = {name: classes.index(new) if new else IGNORE_INDEX for name, new in renamed.items()}
    table = source.table.with_classes([index[name] for name in source.classes])
    first = {name: next(old for old, new in renamed.items() if new == name) for name in classes}
    palette = tuple(source.palette[source.classes.index(first[name])] for name in classes)
    return replace(source, classes=classes, palette=palette, table=table)
