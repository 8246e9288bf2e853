"""Decoded samples, kept on disk as plain arrays that are mapped into memory: a file is decoded once, not every epoch.

All workers and later runs share what is kept; the system holds it in memory as far as there is room.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segformer.arrays import Array
from segformer.data.dataset import Sample
from segformer.data.images import RGB, Decoding
from segformer.data.joining import Translated
from segformer.files import disk_errors


@dataclass(frozen=True)
class CachedSample:
    """A sample of files, read through the cache; changed files are decoded anew."""

    sample: Sample
    folder: Path

    @property
    def name(self) -> str:
        """That of the sample."""
        return self.sample.name

    @property
    def image(self) -> Path:
        """Its image file."""
        path: Path = self.sample.image  # type: ignore[attr-defined]  # only samples of files are cached
        return path

    @property
    def mask(self) -> Path:
        """The file of its classes."""
        path: Path = self.sample.mask  # type: ignore[attr-defined]
        return path

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return image and mask as the sample does; the files stay as they are whatever is written to the arrays."""
        key = self._key(decoding)
        paths = [self.folder / key[:2] / f"{key}_{part}.npy" for part in ("image", "mask")]
        try:
            image, mask = (np.load(path, mmap_mode="c", allow_pickle=False) for path in paths)
        except (OSError, ValueError, EOFError):  # not kept yet, or damaged
            image, mask = self.sample.read(decoding)
            for path, array in zip(paths, (image, mask), strict=True):
                keep(array, path)
        return image, mask

    def _key(self, decoding: Decoding) -> str:
        files = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in (self.image, self.mask)]
        return hashlib.blake2b(repr((self.sample, decoding, files)).encode(), digest_size=16).hexdigest()


def cached(samples: Sequence[Sample], folder: str) -> list[Sample]:
    """Return the samples, read through the cache in a folder."""
    return [cached_sample(sample, Path(folder)) for sample in samples]


def cached_sample(sample: Sample, folder: Path) -> Sample:
    """Wrap a sample of files, also one of a joined data set; another is returned as it is."""
    if isinstance(sample, Translated):
        return replace(sample, sample=cached_sample(sample.sample, folder))
    return CachedSample(sample, folder) if hasattr(sample, "image") and hasattr(sample, "mask") else sample


def keep(array: Array, path: Path) -> None:
    """Write an array beside its place and rename it; workers that write the same do not meet."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array, allow_pickle=False)
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
