"""Survey of a folder in the generic layout, file by file, so that one fault does not hide the others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segformer.data.dataset import Pair
from segformer.data.doctor.findings import Finding, count
from segformer.data.doctor.items import Item, Survey
from segformer.data.image_paths import list_images
from segformer.data.sources.description import DESCRIPTION, read_description
from segformer.data.sources.folder_pairs import IMAGES, LISTED, MASK_SUFFIXES, MASKS, hash_splits, list_splits
from segformer.data.sources.split_lists import find_listed, read_lines, shared_name
from segformer.errors import UserError

Listing = tuple[list[Item], list[Finding]]


def survey_folder(root: str) -> Survey:
    """List the files of a folder in the generic layout; every fault of the layout becomes a finding.

    Raises a UserError if there is no such folder.
    """
    folder = Path(root)
    if not root or not folder.is_dir():
        raise UserError(f"no data folder at '{root}'; expected one that contains {IMAGES}/ and {MASKS}/")
    missing = [part for part in (IMAGES, MASKS) if not (folder / part).is_dir()]
    if missing:
        problem = f"expected the folders {IMAGES}/ and {MASKS}/, found no {' and no '.join(f'{m}/' for m in missing)}"
        fix = f"put the images into {IMAGES}/train and {IMAGES}/val, the masks into {MASKS}/train and {MASKS}/val"
        return Survey(root, [], findings=(layout_error([root], problem, fix),))
    items, findings, notes = find_items(folder)
    if not any(item.image for item in items):
        problem = f"no images found in {folder / IMAGES}"
        findings.append(layout_error([str(folder / IMAGES)], problem, "add images, with masks of the same names"))
    found = Survey(root, items, findings=tuple(findings), notes=tuple(notes))
    return described(found, folder / DESCRIPTION)


def described(found: Survey, path: Path) -> Survey:
    """Return the survey with the classes of dataset.json, a finding if it is invalid, or a note if it is missing."""
    if not path.is_file():
        note = f"no {DESCRIPTION} found: the classes are counted in the masks"
        return replace(found, notes=(*found.notes, note))
    try:
        classes, palette, table = read_description(path)
    except UserError as error:
        problem = str(error).removeprefix(f"{path}: ")
        fault = layout_error([str(path)], problem, f"correct {DESCRIPTION}")
        return replace(found, findings=(*found.findings, fault))
    return replace(found, classes=classes, palette=palette, table=table)


def layout_error(files: Sequence[str], problem: str, fix: str) -> Finding:
    """Return a finding about the layout, with severity error."""
    return Finding("layout", "error", tuple(files), problem, fix)


def find_items(folder: Path) -> tuple[list[Item], list[Finding], list[str]]:
    """Pair the files of each split; returns items, findings and notes for the user.

    As in ``find_splits``, the splits are given by folders; without folders, by lists; without lists, by a hash of the
    names.
    """
    images, masks = folder / IMAGES, folder / MASKS
    splits = list_splits(images)
    lists = [name for name in LISTED if (folder / f"{name}.txt").is_file()]
    if splits:
        return *pair_folders(folder, splits), []
    if lists:
        return *pair_lists(folder, lists), []
    found, findings = pair_files("", images, masks, None)
    pairs = [Pair(item.name, item.image, item.image) for item in found if item.image]
    made, notes = hash_splits(pairs)
    split_of = {pair.name: name for name, part in made.items() for pair in part}
    return [replace(item, split=split_of.get(item.name, "train")) for item in found], findings, notes


def pair_folders(folder: Path, splits: Sequence[str]) -> Listing:
    """Pair the images and masks in the folders of each split; returns items and findings."""
    images, masks = folder / IMAGES, folder / MASKS
    items: list[Item] = []
    findings: list[Finding] = []
    loose = [str(path) for path in list_images(images) if path.parent == images]
    if loose:
        problem = f"{count(loose, 'image')} beside the folders of the splits ({', '.join(splits)})"
        findings.append(layout_error(loose, problem, "move them into one of these folders"))
    for name in dict.fromkeys([*splits, *list_splits(masks)]):
        found, faults = pair_files(name, images / name, masks / name, folder / f"{name}.txt")
        items += found
        findings += faults
    return items, findings


def pair_lists(folder: Path, lists: Sequence[str]) -> Listing:
    """Pair the images in each split's list with their masks; returns items and findings.

    A mask without an image is in no list; it becomes one item, not one for each list.
    """
    items: list[Item] = []
    findings: list[Finding] = []
    for name in lists:
        found, faults = pair_files(name, folder / IMAGES, folder / MASKS, folder / f"{name}.txt")
        orphans = {item.mask for item in items if item.image is None}
        items += [item for item in found if item.image or item.mask not in orphans]
        findings += faults
    return items, findings


def pair_files(split: str, images: Path, masks: Path, split_list: Path | None) -> Listing:
    """Pair images and masks of the same name; files without a partner become items too.  Returns items and findings.

    If the file ``split_list`` exists, only the images that it names are used.
    """
    found, clashes = images_by_name(images)
    drawn, _ = images_by_name(masks)
    findings = []
    if clashes:
        same = f"{count(clashes, 'image')} with the same name as another image except for the ending"
        problem = f"{same}: both would share a mask"
        findings.append(layout_error(clashes, problem, "rename one image of each pair, and its mask"))
    names = list(found)
    if split_list is not None and split_list.is_file():
        meant = {line: find_listed(line, found, images) for line in read_lines(split_list)}
        names = [name for name in meant.values() if name]
        unknown = [line for line, name in meant.items() if not name]
        if unknown:
            listed = f"{split_list.name} names {count(unknown, 'image')} that {images} does not have"
            problem = f"{listed}: {', '.join(unknown[:3])}"
            findings.append(layout_error([str(split_list)], problem, "correct the list, or add the images"))
    items = []
    for name in names:
        mask = drawn.get(name)
        unfit = mask is not None and mask.suffix.lower() not in MASK_SUFFIXES
        items.append(Item(split, name, found[name], mask, masks / f"{name}.png" if unfit else None))
    items += [Item(split, name, None, path) for name, path in drawn.items() if name not in found]
    return items, findings


def images_by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return a dict from names to the images below a folder, and a list of the images whose name is already taken.

    Of several files with the same name, the dict contains the one whose ending is preferred for masks.
    """
    found: dict[str, Path] = {}
    clashes = []
    for path in sorted(list_images(folder) if folder.is_dir() else [], key=_rank):
        name = shared_name(path, folder)
        if name in found:
            clashes.append(str(path))
        found.setdefault(name, path)
    return dict(sorted(found.items())), clashes


def _rank(path: Path) -> tuple[int, bool, Path]:
    suffix = path.suffix.lower()
    rank = MASK_SUFFIXES.index(suffix) if suffix in MASK_SUFFIXES else len(MASK_SUFFIXES)
    return rank, path.suffix != suffix, path
