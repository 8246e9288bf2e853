"""Load samples as tensors: the package's only PyTorch Dataset, its random generators, and its worker processes."""

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segformer.arrays import to_tensor, to_tensor_view
from segformer.data.dataset import Sample, mask_name
from segformer.data.images import RGB, Decoding
from segformer.data.label_table import LabelTable
from segformer.errors import UserError

T = TypeVar("T")
Transform = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class SegmentationDataset(Dataset[tuple[Tensor, Tensor]]):
    """Transformed samples of one split as tensors: image and mask of class indices.  (C, H, W), (H, W) uint8

    An item is requested by (epoch, index), and the random numbers of its transform depend only on (seed, epoch, index).
    A transform must not write to the image it receives, because the image may share its memory with the sample.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        table: LabelTable,
        transform: Transform | None,
        seed: int = 0,
        decoding: Decoding = RGB,
    ) -> None:
        self.samples = samples
        self.table = table
        self.transform = transform
        self.seed = seed
        self.decoding = decoding

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = item
        sample = self.samples[index]
        pixels, raw = sample.read(self.decoding)
        mask = torch.from_numpy(self.table.apply(raw, mask_name(sample)))
        if self.transform is None:
            return to_tensor(pixels).contiguous(), mask
        return self.transform(to_tensor_view(pixels), mask, generator_of(self.seed, epoch, index))


def generator_of(*key: int) -> torch.Generator:
    """Return a random generator that is seeded by the key; the same key gives the same numbers in every process."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """Mix non-negative integers into a seed; neighboring keys and keys of different lengths give unrelated seeds."""
    (state,) = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return int(state) >> 1  # torch takes 63 bits


def iterate(loader: DataLoader[T]) -> Iterator[T]:
    """Yield the items of a loader; a UserError or OSError in a worker process is raised without the worker's traceback.

    PyTorch itself would raise the same type of exception, but with the worker's traceback as the message.
    """
    try:
        yield from loader
    except (UserError, OSError) as error:
        traceback.clear_frames(error.__traceback__)  # they refer to the loader's iterator, which keeps workers alive
        _, in_worker, message = str(error).rpartition(f"{type(error).__name__}: ")
        if not in_worker:
            raise
        raise UserError(message.strip()) from None


def leave_signals_to_the_parent(_: int) -> None:
    """Move a worker into its own process group, so that Ctrl-C or SIGTERM for the parent's group does not end it."""
    os.setpgid(0, 0)
