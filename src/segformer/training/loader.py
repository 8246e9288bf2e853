"""The samples of each batch, chosen as a function of (seed, step), so that a run can resume at any step."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segformer.data.loading import generator_of, leave_signals_to_the_parent
from segformer.training.task import Plan

PREFETCHED = 4  # number of batches that each worker loads in advance


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Yields one batch, a list of (augmentation number, index), for each of the steps ``start`` ... ``steps`` - 1.

    The data set is shuffled again whenever all of its images have been used.  Each image is used ``repeats`` times in a
    row (repeated augmentation); with 1 repeat, the augmentation number is the epoch.  Process ``rank`` takes every
    ``world_size``-th sample of a global batch, so different processes get the repeats of an image.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        steps: int,
        batch_size: int,
        seed: int,
        repeats: int = 1,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert batch_size % world_size == 0
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.repeats = repeats
        self.steps = range(start, steps)
        self.rank = rank
        self.world_size = world_size
        self._shuffle: tuple[int, list[int]] = (-1, [])

    @classmethod
    def from_plan(
        cls, num_samples: int, plan: Plan, *, start: int, rank: int, world_size: int, repeats: int = 1
    ) -> "StepBatches":
        """Return the batches of a run from step ``start`` on."""
        return cls(
            num_samples,
            steps=plan.steps,
            batch_size=plan.batch_size,
            seed=plan.seed,
            repeats=repeats,
            start=start,
            rank=rank,
            world_size=world_size,
        )

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            begin = step * self.batch_size
            yield [self.item(p) for p in range(begin + self.rank, begin + self.batch_size, self.world_size)]

    def item(self, position: int) -> tuple[int, int]:
        """Return (augmentation number, index) of the sample at a position of the endless sequence of shuffles."""
        image, repeat = divmod(position, self.repeats)
        shuffle, offset = divmod(image, self.num_samples)
        return shuffle * self.repeats + repeat, self._order(shuffle)[offset]

    def _order(self, shuffle: int) -> list[int]:
        if self._shuffle[0] != shuffle:
            generator = generator_of(self.seed, shuffle)
            self._shuffle = (shuffle, torch.randperm(self.num_samples, generator=generator).tolist())
        return self._shuffle[1]


def build_loader(dataset: Dataset[Any], *, workers: int, **options: Any) -> DataLoader[Any]:
    """Return a data loader with ``workers`` processes; ``options`` are further arguments of ``DataLoader``."""
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_the_parent,
        prefetch_factor=PREFETCHED if workers else None,
        **options,
    )
