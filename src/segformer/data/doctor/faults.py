"""What can be wrong with a data set: from what was seen of each file to findings with their fixes.

An error would stop the training or make it learn from wrong labels; a warning is for its owner to judge.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Color, Size
from segformer.data.label_table import INVALID, LabelTable

Severity = Literal["error", "warning"]
Kind = Literal[
    "layout",
    "unreadable_image",
    "unreadable_mask",
    "image_without_mask",
    "mask_without_image",
    "size_mismatch",
    "exif_rotation",
    "color_mask",
    "jpeg_mask",
    "binary_mask",
    "off_by_one",
    "out_of_range",
    "ignored_mask",
    "absent_class",
    "duplicate",
    "near_duplicate",
    "mixed_channels",
]

MAX_NAMED = 6  # files in a command; all of them are in the finding
RARE_SHARE = 0.005  # of a mask: what JPEG leaves around the true values
NUM_STRAY, NUM_STRAY_UNKNOWN = 8, 32  # so many rare values are damage; the second where the classes are not known
# Copies scaled by 5 % and compressed differ in up to 9 of 64 bits (all of them noise on flat ground) and in thumbnails
# by 0.06 of the contrast; frames of CamVid's standing camera by 0.02-0.1, frames of its drives by 0.16 and more.
HASH_DISTANCE, THUMBNAIL_DISTANCE = 12, 0.12
NOISE = 5  # grey levels, so that a flat image has a contrast
ROWS = 1024  # of the distance matrix at a time


@dataclass(frozen=True)
class Finding:
    """One kind of fault with all files that have it, what is wrong in one sentence, and the fix."""

    kind: Kind
    severity: Severity
    files: tuple[str, ...]
    problem: str
    fix: str
    command: str = ""
    """For a shell, where one does it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What was seen of an image and its mask; a field keeps its default where nothing was."""

    split: str
    image: str = ""
    """File; empty where there is only a mask."""
    mask: str = ""
    """File; empty where there is none."""
    drawn: bool = False
    """The two are names, not files."""
    expected_mask: str = ""
    """Where the mask should lie, if it lies elsewhere."""
    image_error: str = ""
    mask_error: str = ""
    stored_size: Size | None = None
    size: Size | None = None
    """(height, width) after the turn that EXIF asks for."""
    mask_size: Size | None = None
    channels: str = ""
    """RGB, grey, ..."""
    fits_unturned: bool = False
    """The mask's borders lie on the edges of the image as stored, not as EXIF turns it."""
    jpeg: bool = False
    """The mask was compressed as a JPEG."""
    mask_mode: str = ""
    """Pillow's, where it is not an index mask's."""
    num_colors: int = 0
    colors: tuple[Color, ...] = ()
    """Of a colour mask, most frequent first."""
    ids: Array | None = None
    counts: Array | None = None
    """Raw label ids of the mask, ascending, and their pixels."""
    moments: Array | None = None
    """(3, C): number, sum and sum of squares of each channel's values."""
    digest: bytes = b""
    """Of the decoded pixels."""
    bits: Array | None = None
    """(64,) bool: a difference hash."""
    thumbnail: Array | None = None
    """(16, 16) grey."""

    @property
    def files(self) -> tuple[str, ...]:
        """Image and mask, those there are."""
        return tuple(name for name in (self.image, self.mask) if name)


def find_faults(
    looks: Sequence[Look], table: LabelTable | None, classes: Sequence[str], counted: bool
) -> list[Finding]:
    """All findings, errors first; ``counted`` says that the classes were counted in the masks."""
    found = [*pairing(looks), *damage(looks), *sizes(looks), *formats(looks, table)]
    if table is not None:
        found += labels([look for look in looks if not is_damaged(look, table, counted)], table, classes, counted)
    found += [*duplicates(looks), *near_duplicates(looks), *channels(looks)]
    if any(look.drawn for look in looks):  # there are no files that a command could change
        found = [replace(finding, command="") for finding in found]
    return sorted(found, key=lambda finding: finding.severity)


def pairing(looks: Sequence[Look]) -> Iterator[Finding]:
    """Images without masks and masks without images."""
    bare = [look for look in looks if look.image and (not look.mask or (look.expected_mask and not look.jpeg))]
    lonely = [look.mask for look in looks if not look.image]
    if bare:
        files = tuple(look.image for look in bare)
        others = [look.mask for look in bare if look.mask]
        seen = f"; there is {others[0]}, but a mask is a .png" if others else ""
        fix = "save these masks as PNG" if others else "add the masks, or remove the images"
        suffix = "" if others else mask_suffix(files, lonely)
        if suffix:
            folder = shlex.quote(lonely[0].rpartition("/")[0])
            fix = f"the masks' names end in '{suffix}'; a mask has the name of its image: rename them, in each split"
            command = f'for f in {folder}/*{suffix}.png; do mv "$f" "${{f%{suffix}.png}}.png"; done'
        else:
            command = "" if others else remove(files)
        problem = f"{number(files, 'image')} without a mask of the same name{seen}"
        yield Finding("image_without_mask", "error", files, problem, fix, command)
    if lonely:
        problem = f"{number(lonely, 'mask')} without an image of the same name; not used"
        fix = "add the images, or remove the masks"
        yield Finding("mask_without_image", "warning", tuple(lonely), problem, fix, remove(lonely))


def mask_suffix(images: Sequence[str], masks: Sequence[str]) -> str:
    """What most masks' names have after an image's name, as '_mask'; empty where they have nothing in common.

    >>> mask_suffix(["images/a.jpg", "images/b.jpg"], ["masks/a_mask.png", "masks/b_mask.png"])
    '_mask'
    """
    names = {name.rpartition("/")[2].rpartition(".")[0] for name in images}
    stems = [name.rpartition("/")[2].rpartition(".")[0] for name in masks]
    tails = Counter(stem[cut:] for stem in stems for cut in range(1, len(stem)) if stem[:cut] in names)
    ((tail, times),) = tails.most_common(1) or [("", 0)]
    return tail if times > len(images) / 2 else ""


def damage(looks: Sequence[Look]) -> Iterator[Finding]:
    """Files that can not be decoded."""
    for kind in ("image", "mask"):
        broken = [look for look in looks if getattr(look, f"{kind}_error")]
        if broken:
            files = tuple(getattr(look, kind) for look in broken)
            reason = getattr(broken[0], f"{kind}_error")
            fix = "replace them from where they came from, or remove each with its mask"
            command = remove([name for look in broken for name in look.files])
            name: Kind = "unreadable_image" if kind == "image" else "unreadable_mask"
            yield Finding(name, "error", files, f"{number(files, kind)} cannot be decoded: {reason}", fix, command)


def sizes(looks: Sequence[Look]) -> Iterator[Finding]:
    """Masks of another size than their image, and those that EXIF turns away from their image."""
    wrong = [look for look in looks if look.size and look.mask_size and look.size != look.mask_size]
    turned = [look for look in wrong if look.stored_size == look.mask_size]
    other = [look for look in wrong if look.stored_size != look.mask_size]
    doubtful = [look for look in looks if look.fits_unturned]
    if other:
        first, files = other[0], tuple(look.mask for look in other)
        problem = (
            f"{number(files, 'mask')} of another size than the image: expected {shown(first.size)} (height x width), "
            f"got {shown(first.mask_size)}"
        )
        fix = "export the mask at its image's size; where it was only scaled, resize it to that, nearest neighbour"
        yield Finding("size_mismatch", "error", files, problem, fix)
    if turned:
        yield exif_rotation(turned, "error", "has the size of the image as stored")
    if doubtful:
        reason = "fits the image as stored better (its borders against the image's edges)"
        yield exif_rotation(doubtful, "warning", reason)


def exif_rotation(turned: Sequence[Look], severity: Severity, reason: str) -> Finding:
    """One finding for images that their masks do not follow."""
    files = tuple(look.image for look in turned)
    problem = f"{number(files, 'image')} that EXIF turns when read, while the mask {reason}"
    command = f"exiftool -n -Orientation=1 {shlex.join(files)}" if len(files) <= MAX_NAMED else ""
    return Finding("exif_rotation", severity, files, problem, "remove the EXIF orientation, or turn the masks", command)


def formats(looks: Sequence[Look], table: LabelTable | None) -> Iterator[Finding]:
    """Masks with colours for ids, and those that a JPEG compression changed."""
    colored = [look for look in looks if look.mask_mode and not look.jpeg]
    spoilt = [look for look in looks if look.jpeg or is_damaged(look, table, table is None)]
    if colored:
        yield color_masks(colored)
    if spoilt:
        files = tuple(look.mask for look in spoilt)
        values = [len(look.ids) for look in spoilt if look.ids is not None]
        seen = f" (up to {max(values)} different values in one)" if values else ""
        problem = f"{number(files, 'mask')} changed by JPEG compression, which mixes the labels at every border{seen}"
        fix = "export them again as PNG from where they were drawn; converting the JPEG does not bring the labels back"
        yield Finding("jpeg_mask", "error", files, problem, fix)


def color_masks(colored: Sequence[Look]) -> Finding:
    """One finding for masks that are pictures, with the colours seen."""
    files = tuple(look.mask for look in colored)
    colors = list(dict.fromkeys(color for look in colored for color in look.colors))
    most = max(look.num_colors for look in colored)
    problem = f"{number(files, 'mask')} in colours (mode {colored[0].mask_mode}) where a class index is expected"
    if not colors:  # the files were not decoded
        return Finding("color_mask", "error", files, problem, "save the class index of every pixel as a grey PNG")
    problem += f"; up to {most} distinct colours in one"
    if all(red == green == blue for red, green, blue in colors):
        fix = "the three channels are equal: keep one"
        return Finding("color_mask", "error", files, problem, fix, rewrite("a[..., 0]", files))
    if most > 256:
        fix = "these look like photos or smoothed masks: export them without antialiasing, as class indices"
        return Finding("color_mask", "error", files, problem, fix)
    palette = ", ".join(str(list(color)) for color in colors[:12]) + (", ..." if len(colors) > 12 else "")
    fix = f'write the index of every pixel\'s colour as a grey PNG; "palette" for dataset.json, as seen: [{palette}]'
    return Finding("color_mask", "error", files, problem, fix)


def is_damaged(look: Look, table: LabelTable | None, counted: bool) -> bool:
    """Whether rare values, which no class has, surround the true ones as JPEG leaves them."""
    if look.jpeg:
        return True
    if look.ids is None or look.counts is None:
        return False
    share = look.counts / look.counts.sum()
    known = table is not None and not counted
    stray = (share < RARE_SHARE) & (wrong_ids(look.ids, table) if known and table is not None else True)
    enough = int(stray.sum()) >= (NUM_STRAY if known else NUM_STRAY_UNKNOWN)
    return enough and int((share >= RARE_SHARE).sum()) < int(stray.sum())


def labels(looks: Sequence[Look], table: LabelTable, classes: Sequence[str], counted: bool) -> Iterator[Finding]:
    """What the label values of the masks tell."""
    seen = [look for look in looks if look.ids is not None]
    splits = {name: [look for look in seen if look.split == name] for name in dict.fromkeys(k.split for k in seen)}
    groups = list(splits.values()) if len(classes) <= 2 else [seen] if seen else []
    odd: set[str] = set()
    for group in groups:
        if set(all_ids(group).tolist()) == {0, IGNORE_INDEX} and class_of(table, IGNORE_INDEX) == IGNORE_INDEX:
            odd |= {look.mask for look in group}
            yield binary(group)
    for group in splits.values():
        if (finding := shifted(group, table, counted)) is not None:
            odd |= {look.mask for look in group}
            yield finding
    rest = [look for look in seen if look.mask not in odd]
    yield from out_of_range(rest, table)
    empty = [look for look in rest if np.all(class_of(table, ids_of(look)) == IGNORE_INDEX)]
    if empty:
        files = tuple(look.mask for look in empty)
        problem = f"{number(files, 'mask')} with every pixel ignored; nothing is learned from it"
        command = remove([name for look in empty for name in look.files])
        yield Finding(
            "ignored_mask", "warning", files, problem, "label them, or remove them with their images", command
        )
    for name in splits:
        yield from absent([look for look in rest if look.split == name], table, classes, name)


def binary(group: Sequence[Look]) -> Finding:
    """Masks whose foreground is 255, which is ignored."""
    files = tuple(look.mask for look in group)
    problem = f"{number(files, 'mask')} in {group[0].split} hold only 0 and 255, and 255 means ignored: no foreground"
    command = rewrite("np.where(a == 255, 1, a).astype(np.uint8)", files)
    return Finding("binary_mask", "error", files, problem, "write 1 for the foreground", command)


def shifted(group: Sequence[Look], table: LabelTable, counted: bool) -> Finding | None:
    """Labels that count from 1 where the classes count from 0."""
    ids, known = all_ids(group), np.flatnonzero((table.values != INVALID) & (table.values != IGNORE_INDEX))
    used = ids[class_of(table, ids) != IGNORE_INDEX]
    if not len(used) or not len(known) or known.min() in used:
        return None
    top = int(known.max())
    expected = list(range(1, top + 1)) if counted else [top + 1]
    if (used if counted else used[wrong_ids(used, table)]).tolist() != expected:
        return None
    files = tuple(look.mask for look in group)
    first = int(known.min())
    problem = (
        f"the labels in {group[0].split} are {used.min()}-{used.max()}, and {first} never occurs, "
        f"but the classes are {first}-{top}: they look shifted by one"
    )
    ignored = np.flatnonzero(table.values == IGNORE_INDEX)
    kept = " & ".join(f"(a != {value})" for value in ignored) or "1"
    fix = "take 1 off every label, or put a name for 0 in front of the classes of dataset.json"
    severity: Severity = "warning" if counted else "error"
    return Finding("off_by_one", severity, files, problem, fix, rewrite(f"a - ({kept})", files))


def out_of_range(looks: Sequence[Look], table: LabelTable) -> Iterator[Finding]:
    """Labels that no class has."""
    wrong = [(look, ids_of(look)[wrong_ids(ids_of(look), table)]) for look in looks]
    wrong = [(look, ids) for look, ids in wrong if len(ids)]
    if not wrong:
        return
    files = tuple(look.mask for look, _ in wrong)
    values = np.unique(np.concatenate([ids for _, ids in wrong])).tolist()
    known = np.flatnonzero((table.values != INVALID) & (table.values != IGNORE_INDEX))
    listing = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    problem = (
        f"{number(files, 'mask')} with labels that no class has: {listing}; the classes are {known.min()}-{known.max()}"
    )
    fix = (
        'correct the masks, add the missing names to "classes" of dataset.json, or write 255 for what is to be ignored'
    )
    if values == [known.max() + 1]:
        fix += "; if label 0 stands for 'nothing', its name is missing in front"
    elif values == [IGNORE_INDEX - 1]:
        fix += "; 254 is what 255 becomes where 1 was taken off every label: write 255"
    yield Finding("out_of_range", "error", files, problem, fix)


def absent(looks: Sequence[Look], table: LabelTable, classes: Sequence[str], split: str) -> Iterator[Finding]:
    """Classes that no mask of a split shows."""
    if not looks:
        return
    present = class_of(table, all_ids(looks))
    missing = [name for k, name in enumerate(classes) if k not in present and k in table.values]
    if missing:
        problem = f"in {split}, {number(missing, 'class')} never occur: {', '.join(missing)}"
        fix = f"move or add images that show them to {split}, or take them out of the classes and renumber the masks"
        yield Finding("absent_class", "warning", (), problem, fix)


def duplicates(looks: Sequence[Look]) -> Iterator[Finding]:
    """Images of a split with the same pixels."""
    groups: dict[tuple[str, bytes], list[Look]] = {}
    for look in looks:
        if look.digest:
            groups.setdefault((look.split, look.digest), []).append(look)
    same = [group for group in groups.values() if len(group) > 1]
    if same:
        files = tuple(look.image for group in same for look in group)
        names = ", ".join(f"{group[1].image} = {group[0].image}" for group in same[:3])
        problem = f"{number(files, 'image')} that are copies of one another within a split: {names}"
        command = remove([name for group in same for look in group[1:] for name in look.files])
        yield Finding("duplicate", "warning", files, problem, "remove the copies with their masks", command)


def near_duplicates(looks: Sequence[Look]) -> Iterator[Finding]:
    """Images of one split that another split has as well, or almost."""
    hashed = [look for look in looks if look.bits is not None]
    pairs = close_pairs(hashed)
    if pairs:
        files = tuple(dict.fromkeys(look.image for pair in pairs for look in pair))
        names = ", ".join(f"{a.image} ~ {b.image}" for a, b in pairs[:3])
        problem = f"{number(pairs, 'pair')} of nearly the same image in two splits: {names}; scores will be too good"
        fix = "keep each in one split; divide videos and places by sequence, not by frame"
        command = remove(list(dict.fromkeys(name for a, _ in pairs for name in a.files)))
        yield Finding("near_duplicate", "warning", files, problem, fix, command)


def close_pairs(looks: Sequence[Look]) -> list[tuple[Look, Look]]:
    """Pairs from different splits whose difference hashes are near and whose thumbnails agree.

    The distances of all hashes are a matrix product of +-1; flat images share a hash by chance: hence the thumbnails.
    """
    if not looks:
        return []
    signs = np.stack([look.bits for look in looks if look.bits is not None]).astype(np.float32) * 2 - 1
    thumbnails = np.stack([look.thumbnail for look in looks if look.thumbnail is not None]).astype(np.float32)
    contrast = np.abs(thumbnails - thumbnails.mean((1, 2), keepdims=True)).mean((1, 2))
    splits = np.unique([look.split for look in looks], return_inverse=True)[1]
    pairs = []
    for start in range(0, len(looks), ROWS):
        near = signs[start : start + ROWS] @ signs.T >= 64 - 2 * HASH_DISTANCE
        near &= splits[start : start + ROWS, None] < splits[None]
        for i in np.flatnonzero(near.any(1)).tolist():
            others = np.flatnonzero(near[i])
            distance = np.abs(thumbnails[start + i] - thumbnails[others]).mean((1, 2))
            alike = others[distance <= THUMBNAIL_DISTANCE * (contrast[start + i] + NOISE)]
            pairs += [(looks[start + i], looks[j]) for j in alike.tolist()]
    return pairs


def channels(looks: Sequence[Look]) -> Iterator[Finding]:
    """Images of several kinds."""
    kinds = Counter(look.channels for look in looks if look.channels)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        files = tuple(look.image for look in looks if look.channels and look.channels != usual)
        counts = ", ".join(f"{kind} {times}" for kind, times in kinds.most_common())
        problem = f"images of several kinds: {counts}; all are read as 8-bit RGB, transparency laid over white"
        fix = f"check that the images which are not {usual} belong here and look right in the contact sheet"
        yield Finding("mixed_channels", "warning", files, problem, fix)


def ids_of(look: Look) -> Array:
    """Label ids of a mask that was decoded."""
    assert look.ids is not None
    return look.ids


def all_ids(looks: Sequence[Look]) -> Array:
    """Label ids of all masks, ascending."""
    return np.unique(np.concatenate([ids_of(look) for look in looks]))


def class_of(table: LabelTable, ids: Any) -> Array:
    """Class index, IGNORE_INDEX or INVALID of each id."""
    inside = np.clip(ids, 0, len(table.values) - 1)
    return np.where(inside == ids, table.values[inside], INVALID)


def wrong_ids(ids: Array, table: LabelTable | None) -> Array:
    """Which ids the table does not know."""
    assert table is not None
    return np.asarray(class_of(table, ids) == INVALID)


def number(things: Sequence[Any], noun: str) -> str:
    """Count in words.

    >>> number([1], "mask"), number([1, 2], "class")
    ('1 mask', '2 classes')
    """
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{len(things)} {noun if len(things) == 1 else plural}"


def shown(size: Size | None) -> str:
    """Write (height, width)."""
    return "-" if size is None else f"{size[0]} x {size[1]}"


def remove(files: Sequence[str]) -> str:
    """Return the command that deletes files, where they are few enough to be named."""
    return f"rm {shlex.join(files)}" if 0 < len(files) <= 2 * MAX_NAMED else ""


def rewrite(expression: str, files: Sequence[str]) -> str:
    """Return the command that replaces the array ``a`` of each mask; many are named by their folders."""
    folders = dict.fromkeys(name.rpartition("/")[0] for name in files)
    arguments = (
        shlex.join(files) if len(files) <= MAX_NAMED else " ".join(f"{shlex.quote(name)}/*.png" for name in folders)
    )
    code = (
        "import sys, numpy as np; from PIL import Image; "
        f"[Image.fromarray((lambda a: {expression})(np.array(Image.open(f)))).save(f) for f in sys.argv[1:]]"
    )
    return f'python -c "{code}" {arguments}'
