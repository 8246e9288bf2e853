"""Effective receptive fields over a data set, of several networks at once; stopped and resumed at will."""

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from segformer.arrays import to_tensor_view
from segformer.config import ModelCard, Preprocessing, Size
from segformer.data.dataset import Sample
from segformer.data.images import Decoding
from segformer.data.transforms import resize_image
from segformer.errors import UserError
from segformer.files import write_bytes
from segformer.receptive_field.field import NOTHING, ReceptiveFields, image_fields
from segformer.receptive_field.probes import Probe
from segformer.resumable import OnProgress

STATE = "erf.npz"
METHOD = 1  # raised when the same images and weights would give other numbers
SAVE_EVERY = 30.0  # seconds
ALIGNED = 64  # twice the largest stride: then the central positions of all outputs are over the central pixel

Fields = dict[str, ReceptiveFields]


def measure(
    probes: Sequence[Probe],
    name: str,
    samples: Sequence[Sample],
    *,
    card: ModelCard,
    size: Size,
    limit: int,
    out: Path,
    progress: OnProgress | None = None,
) -> Fields:
    """Return the fields of each network, by its label, over the first ``limit`` samples of the data called ``name``.

    ``card`` says how images are decoded.  The sums so far are kept in ``out / "erf.npz"``, also when this is
    interrupted, and the next call goes on from there with the same result.  Raises a UserError where what is kept
    there is of something else, and says of what.
    """
    if not samples:
        raise UserError(f"{name}: there are no images in this split")
    fingerprint, path = fingerprint_of(probes, name, samples, size), out / STATE
    fields = read_state(path, fingerprint) if path.exists() else {probe.label: NOTHING for probe in probes}
    chosen, saved, saved_at = samples[:limit], count_of(fields), time.monotonic()
    if saved > len(chosen):
        raise UserError(f"{path} holds {saved} images, more than {len(chosen)}; raise --limit or give another --out")
    try:
        for index in range(saved, len(chosen)):
            if progress:
                progress(index, len(chosen))
            pixels = pixels_of(chosen[index], card, size)
            # A new object, so that an interruption finds all networks after this image or none.
            fields = {probe.label: with_image(fields[probe.label], probe, pixels) for probe in probes}
            if time.monotonic() - saved_at > SAVE_EVERY:
                write_state(path, fields, fingerprint)
                saved, saved_at = index + 1, time.monotonic()
    finally:
        if count_of(fields) > saved:
            write_state(path, fields, fingerprint)
    if progress:
        progress(len(chosen), len(chosen))
    for label, total in fields.items():
        total.check(label)
    return fields


def with_image(total: ReceptiveFields, probe: Probe, pixels: Tensor) -> ReceptiveFields:
    """Return the sums with those of one more image (C, H, W); a UserError names the network."""
    try:
        return total.plus(image_fields(probe, probe.normalize(pixels)))
    except ValueError as error:
        raise UserError(f"{probe.label}: {error}") from error


def choose_size(size: Size | None, preprocessing: Preprocessing) -> Size:
    """Return a given size, or a square of the model's short side; raises a UserError where a stage has no center.

    >>> choose_size(None, Preprocessing(short_side=512)), choose_size(None, Preprocessing(short_side=360))
    ((512, 512), (384, 384))
    """
    if size is None:
        side = max(1, round(preprocessing.short_side / ALIGNED)) * ALIGNED
        return side, side
    if any(side < ALIGNED or side % ALIGNED for side in size):
        raise UserError(
            f"--size must be two multiples of {ALIGNED} (height and width), got {size[0]} {size[1]}: at others the "
            f"central positions of the stages do not lie over the same pixel"
        )
    return size


def pixels_of(sample: Sample, card: ModelCard, size: Size) -> Tensor:
    """Decode a sample's image as a model takes it, and bring it to a size.  -> (C, *size)"""
    image = to_tensor_view(sample.read(Decoding.from_model(card.model, card.preprocessing))[0])
    return cropped(image, size, antialias=card.preprocessing.antialias)


def cropped(image: Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    """Resize an image so that it just covers a size, aspect kept, and cut out the middle.  (C, H, W) -> (C, *size)"""
    factor = max(size[0] / image.shape[1], size[1] / image.shape[2])
    height, width = (max(least, round(side * factor)) for least, side in zip(size, image.shape[1:], strict=True))
    if (height, width) != tuple(image.shape[1:]):
        image = resize_image(image, (height, width), antialias)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def fingerprint_of(probes: Sequence[Probe], name: str, samples: Sequence[Sample], size: Size) -> dict[str, str]:
    """Say what a measurement is of, so far as its numbers depend on it; how many images is left out."""
    names = "\n".join(sample.name for sample in samples)
    return {
        "method": str(METHOD),
        "models": ", ".join(f"{probe.label} ({probe.digest})" for probe in probes),
        "data": f"{name}, {len(samples)} images ({hashlib.sha256(names.encode()).hexdigest()[:8]})",
        "size": f"{size[0]} x {size[1]}",
    }


def count_of(fields: Mapping[str, ReceptiveFields]) -> int:
    """How many images there are in the sums."""
    return next(iter(fields.values())).count


def write_state(path: Path, fields: Mapping[str, ReceptiveFields], fingerprint: Mapping[str, str]) -> None:
    """Keep the sums, all at once."""
    strides = {label: dict(total.strides) for label, total in fields.items()}
    about = {"fingerprint": dict(fingerprint), "count": count_of(fields), "strides": strides}
    arrays = {f"{i}/{name}": total.sums[name] for i, total in enumerate(fields.values()) for name in total.sums}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    write_bytes(path, buffer.getvalue())


def read_state(path: Path, fingerprint: Mapping[str, str]) -> Fields:
    """Read the sums; raises a UserError that names what differs from ``fingerprint``."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged, or not written by segformer erf; remove it or give another --out") from error
    for name, value in fingerprint.items():
        kept = about["fingerprint"].get(name)
        if kept != value:
            raise UserError(f"{path} holds other {name}: {kept}, now {value}; remove it or give another --out")
    return {
        label: ReceptiveFields({name: arrays[f"{i}/{name}"] for name in strides}, strides, about["count"])
        for i, (label, strides) in enumerate(about["strides"].items())
    }
