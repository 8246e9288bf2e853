"""A sample whose image is corrupted when it is read."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segformer.arrays import Array
from segformer.data.dataset import Sample
from segformer.data.images import RGB, Decoding
from segformer.data.loading import seed_of
from segformer.errors import UserError
from segformer.robustness.corruptions import corrupt


@dataclass(frozen=True)
class CorruptedSample:
    """A sample with a corrupted image and an unchanged mask.

    The random numbers depend only on seed, corruption, severity and the sample's name, so every reading gives the same
    image.
    """

    sample: Sample
    corruption: str
    severity: int
    seed: int = 0
    frost: Path | None = None

    @property
    def name(self) -> str:
        """Name of the original sample."""
        return self.sample.name

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode the image and corrupt it; returns (image, unchanged mask).  (H, W, 3) uint8, (H, W)"""
        image, mask = self.sample.read(decoding)
        key = (self.seed, self.severity, digest_number(self.corruption), digest_number(self.name))
        rng = np.random.default_rng(seed_of(*key))
        try:
            return corrupt(image, self.corruption, self.severity, rng, frost=self.frost), mask
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from error


def short_digest(parts: Iterable[bytes]) -> str:
    """Return a digest of the parts: sixteen hexadecimal digits, the same on every machine."""
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        total.update(part)
    return total.hexdigest()


def digest_number(text: str) -> int:
    """Return a digest of a text as a number, the same on every machine."""
    return int(short_digest([text.encode()]), 16)
