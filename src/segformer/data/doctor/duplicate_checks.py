"""Checks for duplicates: a file in two splits, copies within a split, or nearly the same image in two splits."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from segformer.data.doctor.facts import SampleFacts
from segformer.data.doctor.findings import Finding, count, removal
from segformer.data.doctor.labels import Labels

# Copies that were scaled by 5 % and compressed differ in up to 9 of 64 bits (on flat ground, all of these are noise),
# and their thumbnails differ by 0.06 of the contrast.  Thumbnails of frames from CamVid differ by 0.02-0.1 while the
# camera stands still, and by 0.16 or more while it drives.
HASH_DISTANCE = 12
THUMBNAIL_DISTANCE = 0.12
NOISE = 5  # gray levels, so that a flat image has a contrast
ROWS = 1024  # rows of the distance matrix computed at once


def check_shared_files(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find image files that are in more than one split."""
    shared = splits_of_shared_files(without_joined_splits(samples))
    if shared:
        names = ", ".join(f"{name} in {' and '.join(splits)}" for name, splits in list(shared.items())[:3])
        problem = f"{count(tuple(shared), 'image file')} in more than one split: {names}; scores will be too good"
        fix = "remove the line from one of the lists (or the file from one split)"
        yield Finding("in_two_splits", "warning", tuple(shared), problem, fix)


def check_duplicates(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find different image files of the same split with identical pixels."""
    samples = without_joined_splits(samples)
    shared = splits_of_shared_files(samples)
    groups: dict[tuple[str, bytes], dict[str, SampleFacts]] = {}
    for sample in samples:
        if sample.digest:
            groups.setdefault((sample.split, sample.digest), {})[sample.image] = sample
    same = [list(group.values()) for group in groups.values() if len(group) > 1]
    if same:
        files = tuple(sample.image for group in same for sample in group)
        names = ", ".join(f"{group[1].image} = {group[0].image}" for group in same[:3])
        problem = f"{count(files, 'image')} that are copies of one another within a split: {names}"
        copies = [sample for group in same for sample in group[1:] if sample.image not in shared]
        command = removal([name for sample in copies for name in sample.files])
        yield Finding("duplicate", "warning", files, problem, "remove the copies with their masks", command)


def check_near_duplicates(samples: Sequence[SampleFacts], labels: Labels) -> Iterator[Finding]:
    """Find pairs of nearly identical images in different splits."""
    samples = without_joined_splits(samples)
    shared = splits_of_shared_files(samples)
    close = close_pairs([sample for sample in samples if sample.bits is not None])
    pairs = [(a, b) for a, b in close if a.drawn or a.image != b.image]
    if pairs:
        files = tuple(dict.fromkeys(sample.image for pair in pairs for sample in pair))
        names = ", ".join(f"{a.image} ~ {b.image}" for a, b in pairs[:3])
        problem = f"{count(pairs, 'pair')} of nearly the same image in two splits: {names}; scores will be too good"
        fix = "keep each image in one split only, and all frames of one video or place in the same split"
        command = removal(list(dict.fromkeys(name for a, _ in pairs if a.image not in shared for name in a.files)))
        yield Finding("near_duplicate", "warning", files, problem, fix, command)


def splits_of_shared_files(samples: Sequence[SampleFacts]) -> dict[str, list[str]]:
    """Map each image file that is in more than one split to these splits; no fix may delete such a file."""
    splits: dict[str, dict[str, None]] = {}
    for sample in samples:
        if sample.image and not sample.drawn:
            splits.setdefault(sample.image, {})[sample.split] = None
    return {name: list(found) for name, found in splits.items() if len(found) > 1}


def without_joined_splits(samples: Sequence[SampleFacts]) -> list[SampleFacts]:
    """Return the samples without those of splits that are the union of two other splits, such as trainval."""
    images: dict[str, set[str]] = {}
    for sample in samples:
        if sample.image:
            images.setdefault(sample.split, set()).add(sample.image)
    pairs = [(a, b) for a, b in combinations(images.values(), 2) if not a & b]
    joined = {split for split, files in images.items() if any(a | b == files for a, b in pairs)}
    return [sample for sample in samples if sample.split not in joined]


def close_pairs(samples: Sequence[SampleFacts]) -> list[tuple[SampleFacts, SampleFacts]]:
    """Return pairs of images from different splits whose difference hashes and thumbnails are similar.

    With bits written as +1 and -1, one matrix product gives the distances between all hashes.  Images of little
    contrast may have the same hash by chance, so the thumbnails are compared as well.
    """
    if not samples:
        return []
    signs = np.stack([s.bits for s in samples if s.bits is not None]).astype(np.float32) * 2 - 1
    thumbnails = np.stack([s.thumbnail for s in samples if s.thumbnail is not None]).astype(np.float32)
    contrast = np.abs(thumbnails - thumbnails.mean((1, 2), keepdims=True)).mean((1, 2))
    splits = np.unique([s.split for s in samples], return_inverse=True)[1]
    pairs = []
    for start in range(0, len(samples), ROWS):
        near = signs[start : start + ROWS] @ signs.T >= 64 - 2 * HASH_DISTANCE
        near &= splits[start : start + ROWS, None] < splits[None]
        for i in np.flatnonzero(near.any(1)).tolist():
            others = np.flatnonzero(near[i])
            distance = np.abs(thumbnails[start + i] - thumbnails[others]).mean((1, 2))
            alike = others[distance <= THUMBNAIL_DISTANCE * (contrast[start + i] + NOISE)]
            pairs += [(samples[start + i], samples[j]) for j in alike.tolist()]
    return pairs
