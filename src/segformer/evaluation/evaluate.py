"""Score a model on a split, every label at its original size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from torch.utils.data import DataLoader

from segformer.config import EvalConfig, check_choice
from segformer.data.dataset import (
    DataSource,
    SegmentationDataset,
    generator_of,
    iterate,
    leave_signals_to_the_parent,
)
from segformer.data.images import RGB, Decoding
from segformer.evaluation.examination import Counts, Examination, identity
from segformer.evaluation.inference import predict_mask, predict_with_scores
from segformer.evaluation.metrics import Scores
from segformer.evaluation.tally import Tally, group_names, sampled_pixels
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
    samples = samples_of(model, source, split, limit)
    fused, tally = model.fuse(), Tally.empty(len(samples), len(source.classes))
    own = range(len(samples))[part[0] :: part[1]]
    images = load_whole(source, [samples[k] for k in own], workers, decoding_of(model))
    for done, (k, (image, label)) in enumerate(zip(own, images, strict=True), start=1):
        prediction = predict_mask(fused, image, config or model.card.eval)
        tally.add(k, prediction, label.to(prediction.device))
        if progress:
            progress(done, len(own))
    if part[1] > 1:
        tally.sum_over_processes(model.mean.device)
    return Scores(tally.confusion, source.classes)


def examine(
    model: Segmenter,
    source: DataSource,
    split: str = "val",
    *,
    config: EvalConfig | None = None,
    limit: int | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Examination:
    """Evaluate, and look closer: each image, borders, calibration.  Arguments and errors are those of ``evaluate``.

    ``keep`` is a file of the counts so far: an examination that was interrupted goes on from there.  Raises a
    FileExistsError where the file holds an unfinished examination of something else.
    """
    samples, config = samples_of(model, source, split, limit), config or model.card.eval
    names, fused = [sample.name for sample in samples], model.fuse()
    groups = group_names(names, source.sequence)
    # What is examined is told by a look at all weights and files: only where it is kept.
    what = identity(model, source, split, len(samples), config) if keep else {}
    with Counts(keep, what, Tally.empty(len(samples), len(source.classes))) as counts:
        tally = counts.tally
        rest = [k for k in range(len(samples)) if not tally.done[k]]
        images = load_whole(source, [samples[k] for k in rest], workers, decoding_of(model))
        for k, (image, label) in zip(rest, images, strict=True):
            points = sampled_pixels(label, len(samples), generator_of(0, k))
            prediction, scores = predict_with_scores(fused, image, config, points)
            tally.add_scores(k, scores, label.flatten()[points].long().to(scores.device))
            tally.add(k, prediction, label.to(prediction.device))
            counts.advanced()
            if progress:
                progress(int(tally.done.sum()), len(samples))
    return Examination(tally, source.classes, names, groups)


def samples_of(model: Segmenter, source: DataSource, split: str, limit: int | None) -> Sequence[Any]:
    """Return what there is to evaluate; raises a ValueError where that is nothing, or of other classes."""
    check_classes(model, source)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    samples = source.samples(split)[:limit]
    if not samples:
        raise ValueError(f"{source.name}: no images in the split '{split}'")
    return samples


def decoding_of(model: Segmenter) -> Decoding:
    """What images of a model are read as."""
    return Decoding.of(model.card.model, model.card.preprocessing)


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
