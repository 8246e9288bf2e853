"""Checks of files: missing partners, damage, sizes, rotation and kinds of channels."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from segformer.data.doctor.facts import SampleFacts
from segformer.data.doctor.findings import MAX_NAMED, Finding, Kind, Severity, count, removal, size_text
from segformer.data.doctor.labels import Labels


def check_partners(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find images without masks and masks without images."""
    bare = [s for s in samples if s.image and (not s.mask or (s.expected_mask and not s.jpeg))]
    lonely = [s.mask for s in samples if not s.image]
    if bare:
        yield image_without_mask(bare, lonely)
    if lonely:
        problem = f"{count(lonely, 'mask')} without an image of the same name; not used"
        fix = "add the images, or remove the masks"
        yield Finding("mask_without_image", "warning", tuple(lonely), problem, fix, removal(lonely))


def image_without_mask(bare: Sequence[SampleFacts], lonely: Sequence[str]) -> Finding:
    """Return the finding for images without masks; the names of masks without images may suggest a better fix."""
    files = tuple(s.image for s in bare)
    problem = f"{count(files, 'image')} without a mask of the same name"
    others = [s.mask for s in bare if s.mask]
    if others:
        problem += f"; files such as {others[0]} are not read, because their format may change labels"
        return Finding("image_without_mask", "error", files, problem, "save these masks as PNG")
    suffix = mask_suffix(files, lonely)
    if not suffix:
        fix = "add the masks, or remove the images"
        return Finding("image_without_mask", "error", files, problem, fix, removal(files))
    folder = shlex.quote(lonely[0].rpartition("/")[0])
    fix = f"the masks' names end in '{suffix}', but a mask must have its image's name: rename them in each split"
    command = f'for f in {folder}/*{suffix}.png; do mv "$f" "${{f%{suffix}.png}}.png"; done'
    return Finding("image_without_mask", "error", files, problem, fix, command)


def mask_suffix(images: Sequence[str], masks: Sequence[str]) -> str:
    """Return the suffix, such as _mask, that mask names add to the names of over half of the images; otherwise empty.

    >>> mask_suffix(["images/a.jpg", "images/b.jpg"], ["masks/a_mask.png", "masks/b_mask.png"])
    '_mask'
    """
    names = {name.rpartition("/")[2].rpartition(".")[0] for name in images}
    stems = [name.rpartition("/")[2].rpartition(".")[0] for name in masks]
    tails = Counter(stem[cut:] for stem in stems for cut in range(1, len(stem)) if stem[:cut] in names)
    ((tail, times),) = tails.most_common(1) or [("", 0)]
    return tail if times > len(images) / 2 else ""


def check_damage(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find files that cannot be decoded."""
    kinds: tuple[tuple[str, Kind], ...] = (("image", "unreadable_image"), ("mask", "unreadable_mask"))
    for part, kind in kinds:
        broken = [s for s in samples if getattr(s, f"{part}_error")]
        if broken:
            files = tuple(getattr(s, part) for s in broken)
            problem = f"{count(files, part)} cannot be decoded: {getattr(broken[0], f'{part}_error')}"
            fix = "restore them from the original data, or remove each one together with its mask or image"
            command = removal([name for s in broken for name in s.files])
            yield Finding(kind, "error", files, problem, fix, command)


def check_sizes(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find masks that differ in size from their image, and masks that are not rotated like their image."""
    wrong = [s for s in samples if s.size and s.mask_size and s.size != s.mask_size]
    rotated = [s for s in wrong if s.stored_size == s.mask_size]
    other = [s for s in wrong if s.stored_size != s.mask_size]
    doubtful = [s for s in samples if s.fits_unrotated]
    if other:
        files = tuple(s.mask for s in other)
        problem = (
            f"{count(files, 'mask')} of another size than the image: expected {size_text(other[0].size)} "
            f"(height x width), got {size_text(other[0].mask_size)}"
        )
        fix = "export each mask at its image's size; if it was only scaled, resize it with nearest neighbor"
        yield Finding("size_mismatch", "error", files, problem, fix)
    if rotated:
        yield exif_rotation(rotated, "error", "has the size of the image as stored")
    if doubtful:
        yield exif_rotation(doubtful, "warning", "follows the edges of the image as stored")


def exif_rotation(rotated: Sequence[SampleFacts], severity: Severity, reason: str) -> Finding:
    """Return the finding for images that EXIF rotates although their masks are not rotated."""
    files = tuple(s.image for s in rotated)
    problem = f"{count(files, 'image')} that EXIF rotates, although the mask {reason}"
    command = f"exiftool -n -Orientation=1 {shlex.join(files)}" if len(files) <= MAX_NAMED else ""
    fix = "remove the EXIF orientation, or rotate the masks"
    return Finding("exif_rotation", severity, files, problem, fix, command)


def check_channels(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find images whose kind of channels, such as RGB or gray, is not the most frequent one."""
    kinds = Counter(s.channels for s in samples if s.channels)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        files = tuple(s.image for s in samples if s.channels and s.channels != usual)
        counts = ", ".join(f"{kind} {times}" for kind, times in kinds.most_common())
        problem = (
            f"images with different kinds of channels: {counts}; "
            f"all are read as 8-bit RGB, with transparency over white"
        )
        fix = f"check that the images which are not {usual} belong here and look right in the contact sheet"
        yield Finding("mixed_channels", "warning", files, problem, fix)
