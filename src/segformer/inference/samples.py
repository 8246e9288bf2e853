"""Load the samples of a split for a network: images and masks as tensors."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import Tensor
from torch.utils.data import DataLoader

from segformer.data.dataset import DataSource, Sample
from segformer.data.images import RGB, Decoding
from segformer.data.loading import SegmentationDataset, iterate, leave_signals_to_the_parent
from segformer.errors import UserError
from segformer.models.interfaces import Network


def samples_of(network: Network, source: DataSource, split: str, limit: int | None) -> Sequence[Sample]:
    """Return the first ``limit`` samples of a split; all samples if ``limit`` is None.

    Raises a UserError if the split is empty, or if the classes of the network and the data set differ.
    """
    check_classes(network, source)
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}")
    samples = source.samples(split)[:limit]
    if not samples:
        raise UserError(f"{source.name}: no images in the split '{split}'")
    return samples


def load_whole(
    source: DataSource, samples: Sequence[Sample], workers: int, decoding: Decoding = RGB
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and masks of class indices at their original sizes, in order.  -> (C, H, W), (H, W) uint8

    ``workers`` is the number of processes that decode; with 0, the calling process decodes.
    """
    dataset = SegmentationDataset(samples, source.table, transform=None, decoding=decoding)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=cast("Any", [(0, i) for i in range(len(samples))]),
        num_workers=min(workers, len(samples)),
        worker_init_fn=leave_signals_to_the_parent,
    )
    yield from iterate(loader)


def check_classes(network: Network, source: DataSource) -> None:
    """Raise a UserError if a network and a data set have different classes."""
    ours, theirs = network.card.classes, source.classes
    if len(ours) != len(theirs):
        raise UserError(
            f"the model has {len(ours)} classes ({_shortened(ours)}), but {source.name} has {len(theirs)} "
            f"({_shortened(theirs)}); evaluate it on data with its own classes"
        )
    if ours != theirs:
        own, other = next((a, b) for a, b in zip(ours, theirs, strict=True) if a != b)
        raise UserError(
            f"the model's classes are not those of {source.name}: '{own}' in the model, '{other}' in the data; "
            f"bring the classes of dataset.json into the model's order: {', '.join(ours)}"
        )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
