"""Write the shards of Tiny ImageNet as a folder of images, for `segformer pretrain tiny_imagenet_b0 --data DST`.

    python -m benchmarks.tiny_imagenet SRC DST [--limit N]

SRC holds tiny_imagenet_*.npz (each with the encoded images of one split end to end, their offsets, labels and numbers)
and classes.json, {"n01443537": "goldfish, ..."} in the order of the labels.  DST gets train/<class>/ and val/<class>/
with the unchanged bytes of the images, and LOC_synset_mapping.txt with the names of the classes.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from tyro.conf import Positional, arg

from benchmarks.machine import run_command_line
from segformer.errors import UserError
from segformer.files import write_folder
from segformer.pretraining.imagenet import CLASS_NAMES

SUFFIXES = {b"\xff\xd8\xff": ".JPEG", b"\x89PNG\r\n\x1a\n": ".png"}  # of files that begin with these bytes


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file, with its split, label and number."""

    split: str
    label: int
    number: int
    data: bytes


def read_shard(path: Path) -> Iterator[EncodedImage]:
    with np.load(path) as shard:
        split, data, offsets = str(shard["split"]), shard["data"], shard["offsets"]
        for index, (label, number) in enumerate(zip(shard["labels"], shard["number"], strict=True)):
            yield EncodedImage(split, int(label), int(number), data[offsets[index] : offsets[index + 1]].tobytes())


def find_suffix(data: bytes, shard: Path) -> str:
    for start, suffix in SUFFIXES.items():
        if data.startswith(start):
            return suffix
    raise UserError(f"{shard}: expected JPEG or PNG images, got one that begins with {data[:8]!r}")


def unpack(source: Path, target: Path, limit: int | None) -> Counter[str]:
    """Write the images of all shards, at most ``limit`` per class and split; return the number of each split."""
    shards = sorted(source.glob("tiny_imagenet_*.npz"))
    if not shards:
        raise UserError(f"{source}: expected tiny_imagenet_*.npz, found none; give the folder of the shards")
    classes = json.loads((source / "classes.json").read_text())
    taken: Counter[tuple[str, int]] = Counter()
    for split in ("train", "val"):
        for name in classes:
            (target / split / name).mkdir(parents=True)
    for shard in shards:
        for image in read_shard(shard):
            if limit is not None and taken[image.split, image.label] >= limit:
                continue
            taken[image.split, image.label] += 1
            name = list(classes)[image.label]
            file = f"{name}_{image.number}{find_suffix(image.data, shard)}"
            (target / image.split / name / file).write_bytes(image.data)
    (target / CLASS_NAMES).write_text("".join(f"{name} {words}\n" for name, words in classes.items()))
    counts: Counter[str] = Counter()
    for (split, _), number in taken.items():
        counts[split] += number
    return counts


def main(
    source: Annotated[Positional[Path], arg(metavar="SRC", help="Folder with the shards.")],
    target: Annotated[Positional[Path], arg(metavar="DST", help="Folder to write; it must not exist.")],
    /,
    *,
    limit: Annotated[int | None, arg(metavar="N", help="Largest number of images per class and split.")] = None,
) -> None:
    """Turn the shards of Tiny ImageNet into a folder of images."""
    if target.exists():
        raise UserError(f"{target} exists already; give a new folder")
    counts: Counter[str] = Counter()
    write_folder(target, lambda partial: counts.update(unpack(source, partial, limit)))
    print(f"wrote {target}: " + ", ".join(f"{number} {split}" for split, number in sorted(counts.items())))


if __name__ == "__main__":
    run_command_line(main)
