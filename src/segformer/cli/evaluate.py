"""``segformer evaluate``: score a model on a data set."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import (
    ANY_MODEL,
    DataArgument,
    DeviceArgument,
    Protocol,
    ThreadsArgument,
    call,
    load_data,
    load_model,
    protocol_of,
)
from segformer.config import Blend

if TYPE_CHECKING:
    from segformer.config import EvalConfig
    from segformer.data.dataset import DataSource
    from segformer.evaluation.result import Evaluation
    from segformer.evaluation.statistics import Comparison
    from segformer.models.interfaces import Network

SIGNIFICANT = 0.05  # a change is marked if its p is below this
RelabelArgument = Annotated[
    tuple[tuple[str, str], ...], arg(help="Classes to rename, merge or ignore, as data.relabel in training.")
]
SequenceArgument = Annotated[
    str | None,
    arg(
        help="Regular expression for the start of an image's name that all frames of its sequence share; the interval "
        "then draws whole sequences."
    ),
]
OutArgument = Annotated[
    Path | None, arg(metavar="DIR", help="Folder for scores.json and report.html; an evaluation resumes from it.")
]


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(evaluate, arguments)


def evaluate(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Split to evaluate on, such as train, val or test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="Folder of the masks, as data.masks in training.")] = "",
    relabel: RelabelArgument = (),
    protocol: Annotated[Protocol, arg(help="Test protocol; own: the one in the model's config.json.")] = "own",
    blend: Annotated[Blend | None, arg(help="Weights of overlapping windows; None: as the protocol says.")] = None,
    limit: Annotated[int | None, arg(help="Number of images, counted from the first; None: all.")] = None,
    compare: Annotated[str | None, arg(metavar="MODEL", help="Second model to compare on the same images.")] = None,
    sequence: SequenceArgument = None,
    out: OutArgument = None,
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
) -> None:
    """Score a model on a data set: IoU and accuracy of each class, mIoU, mAcc and aAcc, at the labels' own size.

    With --out, an interrupted evaluation is resumed, and a page shows classes, confusions, calibration and the worst
    images.
    """
    source = load_data(data, masks, relabel)
    source = source if sequence is None else replace(source, sequence=sequence)
    evaluations: list[Evaluation] = []
    for name in (model, *([compare] if compare else [])):
        loaded = load_model(name, device, threads)
        config = protocol_of(loaded, protocol, blend)
        folder = out if not compare or out is None else out / ("first" if not evaluations else "second")
        evaluations.append(evaluated(loaded, config, source, split, limit, folder, name))
        print_scores(evaluations[-1], f"{name} on {source.name}, {split}")
    if compare:
        compared(evaluations, (model, compare), out)
    for evaluation in evaluations:
        print(f"mIoU {evaluation.miou:.4f}")


def compared(evaluations: "Sequence[Evaluation]", names: tuple[str, str], out: Path | None) -> None:
    """Compare two evaluations, and write a page about it into the folder ``out``."""
    from segformer.evaluation.page import write_comparison_page

    first, second = evaluations
    comparison = first.compare(second)
    print_comparison(comparison, first.classes, names)
    if out:
        print(f"wrote {write_comparison_page(out, names, first, comparison)}")


def evaluated(
    model: "Network",
    config: "EvalConfig",
    source: "DataSource",
    split: str,
    limit: int | None,
    out: Path | None,
    name: str,
) -> "Evaluation":
    """Evaluate a model under a progress bar, and write its figures and its page into the folder ``out``."""
    from segformer.cli.terminal import progress_of
    from segformer.evaluation.evaluate import evaluate
    from segformer.evaluation.page import write_evaluation_page
    from segformer.files import write_json
    from segformer.inference.predictor import Predictor

    keep = out / "counts" if out else None
    with progress_of("evaluate") as progress:
        evaluation = evaluate(model, source, split, config=config, limit=limit, progress=progress, keep=keep)
    if out:
        write_json(out / "scores.json", evaluation.to_json())
        predictor = Predictor(model, config=config)
        print(f"wrote {write_evaluation_page(out, name, predictor, source, split, evaluation)}")
    return evaluation


def print_scores(evaluation: "Evaluation", title: str) -> None:
    """Print the scores of each class, their means, and how certain those are."""
    from segformer.cli.table import print_paragraph, print_table

    scores = evaluation.scores
    columns = (scores.iou, evaluation.boundary_iou, scores.accuracy, scores.frequency)
    rows = [[name, *map(in_percent, values)] for name, *values in zip(scores.classes, *columns, strict=True)]
    print_table(["class", "IoU", "boundary IoU", "accuracy", "pixels"], rows, title=f"{title} (in %)")
    low, high = evaluation.interval
    calibration = evaluation.calibration
    print("  ".join(f"{name} {value:.4f}" for name, value in scores.summary().items()))
    print_paragraph(f"95 % interval of the mIoU: {low:.4f} - {high:.4f} (bootstrap over {evaluation.unit})")
    print_paragraph(
        f"calibration error {calibration.ece:.4f}; {calibration.ece_after:.4f} with the logits divided by "
        f"{calibration.temperature:.2f}"
    )


def print_comparison(comparison: "Comparison", classes: Sequence[str], names: tuple[str, str]) -> None:
    """Print by how much two models differ on each class, and whether the difference is significant."""
    from segformer.cli.table import print_paragraph, print_table

    columns = (comparison.first, comparison.second, comparison.difference, comparison.low, comparison.high)
    rows = []
    for name, p, *values in zip((*classes, "mean"), comparison.p, *columns, strict=True):
        first, second, change, low, high = map(in_percent, values)
        rows.append([name, first, second, change, low, high, f"{p:.3f}{' *' if p < SIGNIFICANT else ''}"])
    headings = ["class", "first", "second", "change", "low", "high", "p"]
    print_table(headings, rows, title=f"IoU in %: first {names[0]}, second {names[1]}")
    print_paragraph(
        "low, high: 95 % interval of the change. *: significant at 5 % by a permutation test over images; the values "
        "of the classes are corrected after Holm"
    )


def in_percent(share: float) -> str:
    """Write a share in percent; NaN becomes a dash.

    >>> in_percent(0.5), in_percent(math.nan)
    ('50.00', '-')
    """
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
