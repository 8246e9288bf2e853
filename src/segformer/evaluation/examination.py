"""What an examination found, and how its counts survive an interruption."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.config import EvalConfig, to_json
from segformer.data.dataset import DataSource, fingerprint
from segformer.errors import UserError
from segformer.evaluation.calibration import Calibration
from segformer.evaluation.metrics import Scores, or_none
from segformer.evaluation.statistics import Comparison, compare, interval, iou_of, mean_of
from segformer.evaluation.tally import Tally
from segformer.files import write_bytes
from segformer.models.interfaces import Network

SECONDS = 30.0  # between two states on disk
FEWEST_SEQUENCES = 5  # of which an interval says anything


@dataclass(frozen=True, eq=False)
class Examination:
    """What was counted of each image, and the figures made from it."""

    tally: Tally
    classes: tuple[str, ...]
    names: Sequence[str]
    """Of the images."""
    groups: Sequence[str]
    """Sequence that each image belongs to; its own name where there are none."""

    @cached_property
    def scores(self) -> Scores:
        """IoU, accuracy and their means over the whole split."""
        return Scores(self.tally.confusion, self.classes)

    @cached_property
    def boundary_iou(self) -> Array:
        """IoU of each class near borders, (K,); NaN where it has none."""
        return iou_of(self.tally.borders.sum(axis=0))

    @cached_property
    def image_miou(self) -> Array:
        """MIoU of each image over the classes in its label or prediction, (N,); NaN where nothing is labelled."""
        return mean_of(iou_of(self.tally.images))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mIoU over images, or over sequences of them; NaN for fewer than two."""
        return interval(self.tally.images, self.drawn)

    @cached_property
    def calibration(self) -> Calibration:
        """Of a sample of the labelled pixels."""
        return Calibration.of(self.tally.nll, self.tally.bins)

    @cached_property
    def drawn(self) -> Sequence[str]:
        """Group of each image for the bootstrap; where there are fewer than five sequences, each image by itself."""
        return self.groups if len(set(self.groups)) >= FEWEST_SEQUENCES else self.names

    @property
    def unit(self) -> str:
        """What the bootstrap draws, in words."""
        sequences, images = len(set(self.groups)), len(self.names)
        if sequences == images:
            return f"{images} images"
        if sequences >= FEWEST_SEQUENCES:
            return f"{sequences} sequences"
        return f"{images} images of only {sequences} sequences, too narrow"

    def worst(self, number: int) -> list[int]:
        """Places of the images of the lowest mIoU, worst first."""
        order = np.argsort(self.image_miou, kind="stable")  # NaN last
        return [int(k) for k in order[:number] if not np.isnan(self.image_miou[k])]

    def compare(self, other: "Examination") -> Comparison:
        """Compare another model on the same images with this one; raises a UserError where they are others."""
        if list(self.names) != list(other.names) or self.classes != other.classes:
            raise UserError("two models can be compared on the same images and classes only; evaluate both on them")
        return compare(self.tally.images, other.tally.images, self.drawn)

    def to_json(self) -> Mapping[str, Any]:
        """Return everything but the counts of single images; what does not occur is null."""
        values = {**self.scores.to_json()}
        for name, iou in zip(self.classes, self.boundary_iou, strict=True):
            values["classes"][name]["boundary IoU"] = or_none(iou)
        low, high = self.interval
        return {
            "mIoU": values.pop("mIoU"),
            "mIoU interval": {
                "low": or_none(low),
                "high": or_none(high),
                "level": 0.95,
                "drawn": self.unit,
            },
            "boundary mIoU": or_none(float(mean_of(self.boundary_iou))),
            "calibration": self.calibration.to_json(),
            **values,
            "images": {name: or_none(miou) for name, miou in zip(self.names, self.image_miou, strict=True)},
        }


class Counts:
    """A tally on disk: read where the same thing was examined before, and written every half a minute and at the end.

    Raises a UserError where the file holds an unfinished examination of something else.
    """

    def __init__(self, path: Path | None, what: Mapping[str, str], tally: Tally) -> None:
        self.path, self.what, self.tally = path, dict(what), tally
        self.written = time.monotonic()
        if path is not None and path.is_file():
            self._take_over(path)

    def _take_over(self, path: Path) -> None:
        try:
            with np.load(path) as arrays:
                what, kept = json.loads(str(arrays["what"])), {n: arrays[n] for n in arrays.files if n != "what"}
        except (ValueError, KeyError, OSError) as error:
            raise UserError(f"{path}: expected the counts of an evaluation, got {error}; remove it") from error
        if what == self.what:
            self.tally = Tally(**kept)
        elif not kept["done"].all():
            differ = ", ".join(name for name in self.what if what.get(name) != self.what[name])
            raise UserError(
                f"{path} holds an unfinished evaluation of something else (different: {differ}); give another --out, "
                f"or remove it"
            )

    def advanced(self) -> None:
        """Say that an image was counted."""
        if time.monotonic() - self.written > SECONDS:
            self.write()

    def write(self) -> None:
        """Write the state."""
        if self.path is None:
            return
        buffer = BytesIO()
        arrays: dict[str, Any] = {"what": np.array(json.dumps(self.what)), **self.tally.to_arrays()}
        np.savez_compressed(buffer, **arrays)
        write_bytes(self.path, buffer.getvalue())
        self.written = time.monotonic()

    def __enter__(self) -> "Counts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write()


def identity(model: Network, source: DataSource, split: str, num_images: int, config: EvalConfig) -> dict[str, str]:
    """What is examined: two with the same values give the same counts."""
    return {
        "weights": model.fingerprint(),
        "model": json.dumps(to_json(model.card.model)),
        "preprocessing": json.dumps(to_json(model.card.preprocessing)),
        "protocol": json.dumps(to_json(config)),
        "data": f"{source.name} {fingerprint(source)}",
        "images": f"the first {num_images} of {split}",
    }
