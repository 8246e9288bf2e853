"""Which samples make up the batch of a step: a function of (seed, step), so that a run can go on anywhere."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from segformer.config import TrainConfig
from segformer.data.loading import SegmentationDataset, generator_of, leave_signals_to_the_parent
from segformer.data.transforms import stack
from segformer.errors import UserError


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for the steps ``start`` ... ``steps`` - 1; epochs follow one another without a gap.

    Of each global batch, the process ``rank`` of ``world`` takes its share.
    """

    def __init__(self, num_samples: int, config: TrainConfig, *, start: int = 0, rank: int = 0, world: int = 1) -> None:
        if config.batch_size % world:
            raise UserError(
                f"train.batch_size must be a multiple of the {world} devices, got {config.batch_size}; raise it"
            )
        self.num_samples = num_samples
        self.config = config
        self.start = start
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return self.config.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.config.steps):
            first = step * self.config.batch_size
            yield [self.item(p) for p in range(first + self.rank, first + self.config.batch_size, self.world)]

    def item(self, position: int) -> tuple[int, int]:
        """(epoch, index) of the sample at a position of the endless sequence of epochs."""
        epoch, offset = divmod(position, self.num_samples)
        return epoch, self._order(epoch)[offset]

    def _order(self, epoch: int) -> list[int]:
        if getattr(self, "_cached_epoch", None) != epoch:
            generator = generator_of(self.config.seed, epoch)
            self._cached_order: list[int] = torch.randperm(self.num_samples, generator=generator).tolist()
            self._cached_epoch = epoch
        return self._cached_order


def build_loader(dataset: SegmentationDataset, batches: StepBatches) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return the loader of (images (b, C, H, W) normalised, masks (b, H, W) uint8), a batch a step."""
    workers = batches.config.workers
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=stack,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_the_parent,
        prefetch_factor=4 if workers else None,
    )
