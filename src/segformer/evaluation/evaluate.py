"""Evaluation of a model on a split of a data set; predictions are compared with labels at the labels' original size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from segformer.config import EvalConfig
from segformer.data.dataset import DataSource, fingerprint
from segformer.data.loading import generator_of
from segformer.evaluation.metrics import Scores
from segformer.evaluation.result import Evaluation
from segformer.evaluation.tally import Tally, group_names, sampled_pixels
from segformer.inference.predictor import Predictor
from segformer.inference.samples import load_whole, samples_of
from segformer.json_config import to_json
from segformer.models.interfaces import Network
from segformer.resumable import OnProgress, Store
from segformer.validation import check_choice

COUNTS = "counts.npz"
MULTISCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # scales of the paper's multi-scale tests


def evaluate(
    model: Network,
    source: DataSource,
    split: str = "val",
    *,
    config: EvalConfig | None = None,
    limit: int | None = None,
    workers: int = 2,
    progress: OnProgress | None = None,
    keep: Path | None = None,
) -> Evaluation:
    """Evaluate a model on a split, or on its first ``limit`` images.

    ``config`` replaces the model's own test protocol.  ``progress`` is called after each image.  ``keep`` is a folder
    for intermediate results, from which an interrupted evaluation is resumed.  Raises a UserError if the classes of
    the model and the data set differ, or if ``keep`` contains other files or a different, unfinished evaluation.
    """
    predictor = Predictor(model, config=config)
    samples = samples_of(model, source, split, limit)
    names = [sample.name for sample in samples]
    groups = group_names(names, source.sequence)
    # To compute the identity, all weights are read and all files listed; do so only if it is needed.
    identity = identity_of(model, source, split, len(samples), predictor.config) if keep else {}
    store = Store(keep, identity, work="evaluation")
    tally = Tally.empty(len(samples), len(source.classes))
    if store.has(COUNTS):
        tally = Tally.from_arrays(store.load_arrays(COUNTS), store.path(COUNTS), tally)
    rest = [k for k in range(len(samples)) if not tally.done[k]]
    images = load_whole(source, [samples[k] for k in rest], workers, predictor.decoding)
    with store.saving(COUNTS, tally.to_arrays) as advanced:
        for k, (image, label) in zip(rest, images, strict=True):
            points = sampled_pixels(label, len(samples), generator_of(0, k))
            prediction, logits = predictor.mask_with_scores(image, points)
            labels = label.flatten()[points].long().to(logits.device)
            tally.add(k, prediction, label.to(prediction.device), sampled=(logits, labels))
            advanced()
            if progress:
                progress(int(tally.done.sum()), len(samples))
    store.finish()
    return Evaluation(tally, source.classes, names, groups)


def score(
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
    """Return only IoU and accuracy of a model on a split.

    This is faster than ``evaluate``; training uses it to measure the model at intervals.

    ``part`` is (rank, number of processes) of a torch.distributed group.  The images are
    divided among the processes, and each process returns the scores of the whole split.  The other arguments and the
    errors are as for ``evaluate``.
    """
    predictor = Predictor(model, config=config)
    samples = samples_of(model, source, split, limit)
    own = range(len(samples))[part[0] :: part[1]]
    tally = Tally.empty(len(samples), len(source.classes))
    images = load_whole(source, [samples[k] for k in own], workers, predictor.decoding)
    for done, (k, (image, label)) in enumerate(zip(own, images, strict=True), start=1):
        prediction = predictor.mask(image)
        tally.add(k, prediction, label.to(prediction.device))
        if progress:
            progress(done, len(own))
    if part[1] > 1:
        tally.sum_over_processes(model.device)
    return Scores(tally.confusion, source.classes)


def identity_of(model: Network, source: DataSource, split: str, num_images: int, config: EvalConfig) -> dict[str, Any]:
    """Return all inputs that the pixel counts depend on; an evaluation is resumed only if all of them are unchanged."""
    return {
        "weights": model.fingerprint(),
        "model": to_json(model.card.model),
        "preprocessing": to_json(model.card.preprocessing),
        "protocol": to_json(config),
        "data": f"{source.name} {fingerprint(source)}",
        "split": split,
        "num_images": num_images,
    }


def with_protocol(config: EvalConfig, protocol: str, short_side: int) -> EvalConfig:
    """Return the test protocol of a name: whole (image at once), slide (sliding window) or multiscale.

    slide uses the window of ``config`` or, if there is none, a square window with sides of ``short_side`` pixels.
    multiscale mirrors the images and uses the scales of ``config`` if there are several, otherwise the paper's scales;
    the window of ``config`` is kept.
    """
    check_choice("protocol", protocol, ("whole", "slide", "multiscale"))
    if protocol == "whole":
        return EvalConfig()
    if protocol == "slide":
        return replace(config, crop=config.crop or (short_side, short_side), scales=(1.0,), flip=False)
    return replace(config, scales=config.scales if len(config.scales) > 1 else MULTISCALE, flip=True)
