"""Tiny ImageNet's shards as a folder of images, for `segformer pretrain tiny_imagenet_b0 --root DST`.

    python -m benchmarks.tiny_imagenet SRC DST [--limit N]

SRC holds tiny_imagenet_*.npz (encoded images end to end, their offsets, labels and numbers, and a split each) and
classes.json, {"n01443537": "goldfish, ..."} in the order of the labels.  DST gets train/<class>/ and val/<class>/ with
the images' own bytes, and the classes' names in LOC_synset_mapping.txt.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from tyro.conf import Positional, arg

from segformer.files import write_folder
from segformer.pretraining.imagenet import NAMES

SUFFIXES = {b"\xff\xd8\xff": ".JPEG", b"\x89PNG\r\n\x1a\n": ".png"}  # by a file's first bytes


@dataclass(frozen=True)
class Picture:
    """An encoded image and where it belongs."""

    split: str
    label: int
    number: int
    data: bytes


def read_shard(path: Path) -> Iterator[Picture]:
    with np.load(path) as shard:
        split, data, offsets = str(shard["split"]), shard["data"], shard["offsets"]
        for index, (label, number) in enumerate(zip(shard["labels"], shard["number"], strict=True)):
            yield Picture(split, int(label), int(number), data[offsets[index] : offsets[index + 1]].tobytes())


def suffix_of(data: bytes, shard: Path) -> str:
    for start, suffix in SUFFIXES.items():
        if data.startswith(start):
            return suffix
    raise ValueError(f"{shard}: expected JPEG or PNG images, got one that begins with {data[:8]!r}")


def unpack(source: Path, target: Path, limit: int | None) -> Counter[str]:
    """Write the images of all shards, at most ``limit`` of each class and split; returns how many of each split."""
    shards = sorted(source.glob("tiny_imagenet_*.npz"))
    if not shards:
        raise FileNotFoundError(f"{source}: expected tiny_imagenet_*.npz, found none")
    classes = json.loads((source / "classes.json").read_text())
    taken: Counter[tuple[str, int]] = Counter()
    for split in ("train", "val"):
        for name in classes:
            (target / split / name).mkdir(parents=True)
    for shard in shards:
        for picture in read_shard(shard):
            if limit is not None and taken[picture.split, picture.label] >= limit:
                continue
            taken[picture.split, picture.label] += 1
            name = list(classes)[picture.label]
            file = f"{name}_{picture.number}{suffix_of(picture.data, shard)}"
            (target / picture.split / name / file).write_bytes(picture.data)
    (target / NAMES).write_text("".join(f"{name} {words}\n" for name, words in classes.items()))
    counts: Counter[str] = Counter()
    for (split, _), number in taken.items():
        counts[split] += number
    return counts


def main(
    source: Annotated[Positional[Path], arg(metavar="SRC", help="Folder of the shards.")],
    target: Annotated[Positional[Path], arg(metavar="DST", help="Folder to write; it must not exist.")],
    /,
    *,
    limit: Annotated[int | None, arg(metavar="N", help="At most so many images of a class and split.")] = None,
) -> None:
    """Turn the shards of Tiny ImageNet into a folder of images."""
    if target.exists():
        raise SystemExit(f"error: {target} exists already; give another name")
    counts: Counter[str] = Counter()
    write_folder(target, lambda partial: counts.update(unpack(source, partial, limit)))
    print(f"wrote {target}: " + ", ".join(f"{number} {split}" for split, number in sorted(counts.items())))


if __name__ == "__main__":
    tyro.cli(main)
