"""Score a model on a split, every label at its original size."""

from dataclasses import replace
from pathlib import Path

from segformer.config import EvalConfig, check_choice
from segformer.data.dataset import DataSource
from segformer.data.loading import generator_of
from segformer.evaluation.examination import Counts, Examination, identity
from segformer.evaluation.metrics import Scores
from segformer.evaluation.tally import Tally, group_names, sampled_pixels
from segformer.inference.samples import decoding_of, load_whole, samples_of
from segformer.inference.windows import predict_mask, predict_with_scores
from segformer.models.interfaces import Network
from segformer.models.segmenter import for_inference
from segformer.resumable import OnProgress


def evaluate(
    model: Network,
    source: DataSource,
    split: str = "val",
    *,
    config: EvalConfig | None = None,
    limit: int | None = None,
    workers: int = 2,
    progress: OnProgress | None = None,
    part: tuple[int, int] = (0, 1),
) -> Scores:
    """Return the scores of a model over a split (or its first ``limit`` images).

    ``config`` defaults to the model's own test protocol; ``progress`` is called with (images done, of how many).
    ``part`` (k, n) is for n processes of one torch.distributed group: the k-th takes every n-th image, and all return
    the scores of the whole split, each image counted once.
    Raises a UserError where the model's classes are not those of the data.
    """
    samples = samples_of(model, source, split, limit)
    fused, tally = for_inference(model), Tally.empty(len(samples), len(source.classes))
    own = range(len(samples))[part[0] :: part[1]]
    images = load_whole(source, [samples[k] for k in own], workers, decoding_of(model))
    for done, (k, (image, label)) in enumerate(zip(own, images, strict=True), start=1):
        prediction = predict_mask(fused, image, config or model.card.eval)
        tally.add(k, prediction, label.to(prediction.device))
        if progress:
            progress(done, len(own))
    if part[1] > 1:
        tally.sum_over_processes(model.device)
    return Scores(tally.confusion, source.classes)


def examine(
    model: Network,
    source: DataSource,
    split: str = "val",
    *,
    config: EvalConfig | None = None,
    limit: int | None = None,
    workers: int = 2,
    progress: OnProgress | None = None,
    keep: Path | None = None,
) -> Examination:
    """Evaluate, and look closer: each image, borders, calibration.  Arguments and errors are those of ``evaluate``.

    ``keep`` is a file of the counts so far: an examination that was interrupted goes on from there.  Raises a
    UserError where the file holds an unfinished examination of something else.
    """
    samples, config = samples_of(model, source, split, limit), config or model.card.eval
    names, fused = [sample.name for sample in samples], for_inference(model)
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


def with_protocol(config: EvalConfig, protocol: str, short_side: int) -> EvalConfig:
    """Change a test protocol to whole, slide, or multiscale (with flip); numbers it has already are kept."""
    check_choice("protocol", protocol, ("whole", "slide", "multiscale"))
    if protocol == "whole":
        return EvalConfig()
    if protocol == "slide":
        return replace(config, crop=config.crop or (short_side, short_side), scales=(1.0,), flip=False)
    scales = config.scales if len(config.scales) > 1 else (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    return replace(config, scales=scales, flip=True)
