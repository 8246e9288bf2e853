"""Measure the effective receptive fields of several networks on a data set; the measurement can be resumed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from segformer.arrays import Array, to_tensor_view
from segformer.config import ModelCard, Preprocessing, Size
from segformer.data.dataset import Sample
from segformer.data.images import Decoding
from segformer.data.transforms import resize_image
from segformer.errors import UserError
from segformer.receptive_field.field import NO_IMAGES, Fields, ReceptiveFields, image_fields
from segformer.receptive_field.probes import Probe
from segformer.resumable import REMEDY, OnProgress, Store

WORK = "measurement of receptive fields"
STATE = "state"
SUMS = "sums.npz"
OLD_STATE = "erf.npz"  # written by version 0.1
METHOD_VERSION = 1  # raise it when the code gives other numbers for the same images and weights
ALIGNED = 64  # twice the largest stride: sizes in multiples of it put all central positions over the central pixel


def measure(
    probes: Sequence[Probe],
    data: str,
    samples: Sequence[Sample],
    *,
    card: ModelCard,
    size: Size,
    limit: int | None,
    out: Path,
    progress: OnProgress | None = None,
) -> Fields:
    """Return the receptive fields of each network, summed over the first ``limit`` samples (None: over all).

    ``data`` is the name of the data set, and ``card`` says how its images are decoded.  The sums so far
    are stored in ``out``/state, also if the measurement is interrupted; the next call resumes from them, and its result
    is the same as without an interruption.
    Raises a UserError if ``out`` contains another measurement.
    """
    if not samples:
        raise UserError(f"{data}: there are no images in this split")
    if (out / OLD_STATE).is_file():
        raise UserError(f"{out / OLD_STATE} was written by version 0.1 and cannot be resumed; {REMEDY}")
    store = Store(out / STATE, identity_of(probes, data, samples, size), work=WORK)
    fields = load_fields(store, probes)
    chosen = samples[:limit]
    start = image_count(fields)
    if start > len(chosen):
        raise UserError(
            f"{out} has results of {start} images, expected at most {len(chosen)}; raise --limit or give another --out"
        )
    with store.saving(SUMS, lambda: to_arrays(fields)) as advanced:
        for index in range(start, len(chosen)):
            if progress:
                progress(index, len(chosen))
            pixels = read_pixels(chosen[index], card, size)
            # One assignment, so that after an interruption the sums of all networks include the same images.
            fields = {probe.label: add_image(fields[probe.label], probe, pixels) for probe in probes}
            advanced()
    if progress:
        progress(len(chosen), len(chosen))
    for label, total in fields.items():
        total.check(label)
    return fields


def add_image(total: ReceptiveFields, probe: Probe, pixels: Tensor) -> ReceptiveFields:
    """Add the receptive fields of one more image to the total; an error message names the network.

    ``pixels``: (C, H, W).
    """
    try:
        return total.plus(image_fields(probe.outputs, probe.normalize(pixels)))
    except UserError as error:
        raise UserError(f"{probe.label}: {error}") from error


def choose_size(size: Size | None, preprocessing: Preprocessing) -> Size:
    """Return the given size, or a square if ``size`` is None.

    The side of the square is the short side of the preprocessing, rounded to a multiple of 64.  Raises a UserError if a
    side of the given size is not a multiple of 64.

    >>> choose_size(None, Preprocessing(short_side=512)), choose_size(None, Preprocessing(short_side=360))
    ((512, 512), (384, 384))
    """
    if size is None:
        side = max(1, round(preprocessing.short_side / ALIGNED)) * ALIGNED
        return side, side
    if any(side < ALIGNED or side % ALIGNED for side in size):
        raise UserError(
            f"--size must be two multiples of {ALIGNED} (height and width), got {size[0]} {size[1]}: at other sizes "
            f"the central positions of the stages are not over the same pixel"
        )
    return size


def read_pixels(sample: Sample, card: ModelCard, size: Size) -> Tensor:
    """Decode the image of a sample as the model expects it, then resize and crop it to a size.  -> (C, *size)"""
    image = to_tensor_view(sample.read(Decoding.from_model(card.model, card.preprocessing))[0])
    return center_crop(image, size, antialias=card.preprocessing.antialias)


def center_crop(image: Tensor, size: Size, *, antialias: bool = False) -> Tensor:
    """Resize an image with its aspect ratio until it just covers a size, and cut out the middle.  -> (C, *size)"""
    factor = max(size[0] / image.shape[1], size[1] / image.shape[2])
    height, width = (max(least, round(side * factor)) for least, side in zip(size, image.shape[1:], strict=True))
    if (height, width) != tuple(image.shape[1:]):
        image = resize_image(image, (height, width), antialias)
    top = (height - size[0]) // 2
    left = (width - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def identity_of(probes: Sequence[Probe], data: str, samples: Sequence[Sample], size: Size) -> dict[str, object]:
    """Return everything that the sums depend on, except how many images were measured, as JSON values."""
    names = "\n".join(sample.name for sample in samples)
    return {
        "method_version": METHOD_VERSION,
        "models": {probe.label: probe.digest for probe in probes},
        "data": data,
        "num_images": len(samples),
        "image_names": hashlib.sha256(names.encode()).hexdigest()[:16],
        "size": list(size),
    }


def image_count(fields: Fields) -> int:
    """Return the number of images in the sums, which is the same for all networks."""
    return next(iter(fields.values())).count


def to_arrays(fields: Fields) -> dict[str, Array]:
    """Return the sums, the strides and the number of images as arrays.

    "0/stage 1/sum" is the name of the sum for output "stage 1" of the first network.
    """
    arrays: dict[str, Array] = {"count": np.array(image_count(fields))}
    for number, total in enumerate(fields.values()):
        for name in total.sums:
            arrays[f"{number}/{name}/sum"] = total.sums[name]
            arrays[f"{number}/{name}/stride"] = np.array(total.strides[name])
    return arrays


def load_fields(store: Store, probes: Sequence[Probe]) -> Fields:
    """Return the sums that an interrupted measurement stored; if there are none, return empty sums."""
    if not store.has(SUMS):
        return {probe.label: NO_IMAGES for probe in probes}
    arrays = store.load_arrays(SUMS)
    fields = {}
    for number, probe in enumerate(probes):
        names = [key.split("/")[1] for key in arrays if key.startswith(f"{number}/") and key.endswith("/sum")]
        sums = {name: arrays[f"{number}/{name}/sum"] for name in names}
        strides = {name: int(arrays[f"{number}/{name}/stride"]) for name in names}
        fields[probe.label] = ReceptiveFields(sums, strides, int(arrays["count"]))
    return fields
