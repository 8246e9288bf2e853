"""Checks of the label values in masks: shifted by one, out of range, all ignored, or absent."""

from collections.abc import Iterator, Sequence

import numpy as np

from segformer.config import IGNORE_INDEX
from segformer.data.doctor.facts import SampleFacts
from segformer.data.doctor.findings import Finding, Severity, count, removal, rewriting
from segformer.data.doctor.labels import Labels, all_ids, ids_of, is_damaged, wrong_ids
from segformer.data.label_table import LabelTable


def check_labels(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find wrong label values; binary or shifted masks are not checked further, and damaged masks are skipped."""
    table = labels.table
    if table is None:
        return
    seen = [s for s in samples if s.ids is not None and not is_damaged(s, labels.known_table)]
    splits = {name: [s for s in seen if s.split == name] for name in dict.fromkeys(s.split for s in seen)}
    named: set[str] = set()
    for finding in (*binary_masks(seen, splits, labels), *shifted_splits(splits, labels)):
        named |= set(finding.files)
        yield finding
    rest = [s for s in seen if s.mask not in named]
    yield from out_of_range(rest, table, labels.in_description)
    yield from ignored_masks(rest, table)
    for name in splits:
        yield from absent_classes([s for s in rest if s.split == name], labels, name)


def binary_masks(
    seen: Sequence[SampleFacts], splits: dict[str, list[SampleFacts]], labels: Labels
) -> Iterator[Finding]:
    """Find splits whose masks contain only 0 and 255: a foreground of 255 would be ignored.

    With more than two classes, this is reported only if the masks of all splits contain nothing else.
    """
    assert labels.table is not None
    groups = list(splits.values()) if len(labels.classes) <= 2 else [list(seen)] if seen else []
    for group in groups:
        ignored = labels.table.look_up(np.array([IGNORE_INDEX]))[0] == IGNORE_INDEX
        if ignored and set(all_ids(group).tolist()) == {0, IGNORE_INDEX}:
            files = tuple(s.mask for s in group)
            masks = f"{count(files, 'mask')} in {group[0].split}"
            problem = f"{masks} contain only 0 and 255; 255 means ignored, so there is no foreground"
            command = rewriting("np.where(a == 255, 1, a).astype(np.uint8)", files)
            yield Finding("binary_mask", "error", files, problem, "write 1 for the foreground", command)


def shifted_splits(splits: dict[str, list[SampleFacts]], labels: Labels) -> Iterator[Finding]:
    """Find splits in which all labels seem to be one too high."""
    for group in splits.values():
        if (finding := shifted(group, labels)) is not None:
            yield finding


def shifted(group: Sequence[SampleFacts], labels: Labels) -> Finding | None:
    """Return a finding if all labels of one split seem to be one too high; otherwise None."""
    table = labels.table
    assert table is not None
    known = table.class_ids
    ids = all_ids(group)
    used = ids[table.look_up(ids) != IGNORE_INDEX]
    if not len(used) or not len(known) or known.min() in used:
        return None
    first, top = int(known.min()), int(known.max())
    expected = list(range(1, top + 1)) if labels.counted else [top + 1]
    if (used if labels.counted else used[wrong_ids(used, table)]).tolist() != expected:
        return None
    files = tuple(s.mask for s in group)
    problem = (
        f"the labels in {group[0].split} are {used.min()}-{used.max()}, and {first} never occurs, "
        f"but the classes are {first}-{top}: the labels look shifted by one"
    )
    kept = " & ".join(f"(a != {value})" for value in table.ignored_ids) or "1"
    fix = "subtract 1 from every label"
    if labels.in_description:
        fix += ", or add a name for 0 in front of the classes in dataset.json"
    severity: Severity = "warning" if labels.counted else "error"
    return Finding("off_by_one", severity, files, problem, fix, rewriting(f"a - ({kept})", files))


def out_of_range(samples: Sequence[SampleFacts], table: LabelTable, in_description: bool) -> Iterator[Finding]:
    """Find labels that are neither a class nor ignored; with ``in_description``, dataset.json may be edited."""
    found = [(s.mask, ids_of(s)[wrong_ids(ids_of(s), table)]) for s in samples]
    wrong = [(mask, ids) for mask, ids in found if len(ids)]
    if not wrong:
        return
    files = tuple(mask for mask, _ in wrong)
    values = np.unique(np.concatenate([ids for _, ids in wrong])).tolist()
    known = table.class_ids
    listing = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    classes = f"{known.min()}-{known.max()}"
    problem = f"{count(files, 'mask')} with labels that belong to no class: {listing}; the classes are {classes}"
    fix = "correct the masks"
    if in_description:
        fix += ', add the missing names to "classes" in dataset.json'
    if len(table.ignored_ids):
        fix += f", or write {table.ignored_ids.max()} to ignore these pixels"
    if in_description and values == [known.max() + 1]:
        fix += "; if label 0 stands for 'nothing', add a name for it in front of the others"
    elif values == [IGNORE_INDEX - 1]:
        fix += "; 254 is the result of subtracting 1 from 255; write 255 there"
    yield Finding("out_of_range", "error", files, problem, fix)


def ignored_masks(samples: Sequence[SampleFacts], table: LabelTable) -> Iterator[Finding]:
    """Find masks whose pixels are all ignored."""
    empty = [s for s in samples if np.all(table.look_up(ids_of(s)) == IGNORE_INDEX)]
    if empty:
        files = tuple(s.mask for s in empty)
        problem = f"{count(files, 'mask')} with every pixel ignored; nothing is learned from them"
        fix = "label them, or remove them with their images"
        command = removal([name for s in empty for name in s.files])
        yield Finding("ignored_mask", "warning", files, problem, fix, command)


def absent_classes(samples: Sequence[SampleFacts], labels: Labels, split: str) -> Iterator[Finding]:
    """Find classes that occur in no mask of a split."""
    if not samples or labels.table is None:
        return
    present = labels.table.look_up(all_ids(samples))
    missing = [name for k, name in enumerate(labels.classes) if k not in present and k in labels.table.values]
    if missing:
        problem = f"{count(missing, 'class')} without any pixel in {split}: {', '.join(missing)}"
        fix = f"move or add images that show them to {split}, or remove these classes and renumber the masks"
        yield Finding("absent_class", "warning", (), problem, fix)
