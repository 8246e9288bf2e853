"""Cache of decoded samples: each file is decoded once, stored as an array on disk, and memory-mapped from then on.

All worker processes and later runs share the cache.  The operating system keeps as much of it in memory as fits.
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
    """A sample of files that is read through the cache; files that have changed are decoded again."""

    sample: Sample
    folder: Path

    @property
    def name(self) -> str:
        """Name of the sample."""
        return self.sample.name

    @property
    def image(self) -> Path:
        """Image file of the sample."""
        path: Path = self.sample.image  # type: ignore[attr-defined]  # only samples of files are cached
        return path

    @property
    def mask(self) -> Path:
        """File with the labels of the sample, for example a mask or polygons."""
        path: Path = self.sample.mask  # type: ignore[attr-defined]
        return path

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Return image and mask as the sample itself would; writing to the arrays does not change the cache."""
        key = self._key(decoding)
        paths = [self.folder / key[:2] / f"{key}_{part}.npy" for part in ("image", "mask")]
        try:
            image, mask = (np.load(path, mmap_mode="c", allow_pickle=False) for path in paths)
        except (OSError, ValueError, EOFError):  # not cached yet, or damaged
            image, mask = self.sample.read(decoding)
            for path, array in zip(paths, (image, mask), strict=True):
                store_array(array, path)
        return image, mask

    def _key(self, decoding: Decoding) -> str:
        files = [(str(path), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in (self.image, self.mask)]
        return hashlib.blake2b(repr((self.sample, decoding, files)).encode(), digest_size=16).hexdigest()


def cached(samples: Sequence[Sample], folder: str) -> list[Sample]:
    """Return the samples, wrapped so that they are read through the cache in ``folder``."""
    return [cached_sample(sample, Path(folder)) for sample in samples]


def cached_sample(sample: Sample, folder: Path) -> Sample:
    """Return a sample that reads its files through the cache; a sample without files is returned unchanged."""
    if isinstance(sample, Translated):
        return replace(sample, sample=cached_sample(sample.sample, folder))
    return CachedSample(sample, folder) if hasattr(sample, "image") and hasattr(sample, "mask") else sample


def store_array(array: Array, path: Path) -> None:
    """Write an array to a temporary file and rename it, so that several workers can write the same array safely."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, array, allow_pickle=False)
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
