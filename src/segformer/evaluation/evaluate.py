"""Score a model on a split, every label at its original size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor
from torch.utils.data import DataLoader

from segformer.config import EvalConfig, check_choice
from segformer.data.dataset import DataSource, SegmentationDataset, iterate, leave_signals_to_the_parent
from segformer.data.images import RGB, Decoding
from segformer.evaluation.inference import predict_mask
from segformer.evaluation.metrics import ConfusionMatrix, Scores
from segformer.models.segmenter import Segmenter

Progress = Callable[[int, int], None]


def evaluate(
    model: Segmenter,
    source: DataSource,
    split: str = "val",
    *,
    config: EvalConfig | None = None,
    limit: int | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    part: tuple[int, int] = (0, 1),
) -> Scores:
    """Return the scores of a model over a split (or its first ``limit`` images).

    ``config`` defaults to the model's own test protocol; ``progress`` is called with (images done, of how many).
    ``part`` (k, n) is for n processes of one torch.distributed group: the k-th takes every n-th image, and all return
    the scores of the whole split, each image counted once.
    Raises a ValueError where the model's classes are not those of the data.
    """
    check_classes(model, source)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    samples = source.samples(split)[:limit]
    if not samples:
        raise ValueError(f"{source.name}: no images in the split '{split}'")
    fused = model.fuse()
    matrix = ConfusionMatrix(source.classes, model.mean.device)
    decoding = Decoding.of(model.card.model, model.card.preprocessing)
    own = samples[part[0] :: part[1]]
    for done, (image, label) in enumerate(load_whole(source, own, workers, decoding), start=1):
        prediction = predict_mask(fused, image, config or model.card.eval)
        matrix.update(prediction, label.to(prediction.device))
        if progress:
            progress(done, len(own))
    return matrix.compute()


def load_whole(
    source: DataSource, samples: Sequence[Any], workers: int, decoding: Decoding = RGB
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (C, H, W) and masks (H, W) of class indices at their own sizes, in order."""
    dataset = SegmentationDataset(samples, source.table, transform=None, decoding=decoding)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=cast("Any", [(0, i) for i in range(len(samples))]),
        num_workers=min(workers, len(samples)),
        worker_init_fn=leave_signals_to_the_parent,
    )
    yield from iterate(loader)


def check_classes(model: Segmenter, source: DataSource) -> None:
    """Raise a ValueError where a model and a data set have different classes."""
    ours, theirs = model.card.classes, source.classes
    if len(ours) != len(theirs):
        raise ValueError(
            f"the model has {len(ours)} classes ({_listed(ours)}), but {source.name} has {len(theirs)} "
            f"({_listed(theirs)}); evaluate it on data with its own classes"
        )
    if ours != theirs:
        different = next((a, b) for a, b in zip(ours, theirs, strict=True) if a != b)
        raise ValueError(
            f"the model's classes are not those of {source.name}: '{different[0]}' against '{different[1]}'; "
            f"bring the classes of dataset.json into the model's order: {', '.join(ours)}"
        )


def with_protocol(config: EvalConfig, protocol: str, short_side: int) -> EvalConfig:
    """Change a test protocol to whole, slide, or multiscale (with flip); numbers it has already are kept."""
    check_choice("protocol", protocol, ("whole", "slide", "multiscale"))
    if protocol == "whole":
        return EvalConfig()
    if protocol == "slide":
        return replace(config, crop=config.crop or (short_side, short_side), scales=(1.0,), flip=False)
    scales = config.scales if len(config.scales) > 1 else (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    return replace(config, scales=scales, flip=True)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
