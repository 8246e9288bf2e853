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
    LimitArgument,
    MasksArgument,
    Protocol,
    RelabelArgument,
    SplitArgument,
    ThreadsArgument,
    call,
    choose_protocol,
    load_data,
    load_model,
)
from segformer.config import Blend

if TYPE_CHECKING:
    from segformer.config import EvalConfig
    from segformer.data.dataset import DataSource
    from segformer.evaluation.result import Evaluation
    from segformer.evaluation.statistics import Comparison
    from segformer.models.interfaces import Network

SIGNIFICANT = 0.05  # a difference is marked if its p-value is below this
SequenceArgument = Annotated[
    str | None,
    arg(
        help="Regular expression for the part at the start of an image's name that all frames of a sequence share. The "
        "confidence interval then resamples whole sequences; None: as the data set defines sequences."
    ),
]
OutArgument = Annotated[
    Path | None,
    arg(metavar="DIR", help="Folder for scores.json and report.html; an interrupted evaluation in it is resumed."),
]


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(evaluate, arguments)


def evaluate(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: SplitArgument = "val",
    masks: MasksArgument = "",
    relabel: RelabelArgument = (),
    protocol: Annotated[Protocol, arg(help="Test protocol; own: the protocol in the model's config.json.")] = "own",
    blend: Annotated[Blend | None, arg(help="Weighting of overlapping windows; None: as in the protocol.")] = None,
    limit: LimitArgument = None,
    compare: Annotated[str | None, arg(metavar="MODEL", help="Second model to compare on the same images.")] = None,
    sequence: SequenceArgument = None,
    out: OutArgument = None,
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
) -> None:
    """Score a model on a data set: IoU and accuracy of each class, mIoU, mAcc and aAcc.

    Predictions are resized to the size of the masks. With --out, an interrupted evaluation can be resumed, and a page
    shows the scores of the classes, their confusions, the calibration and the worst images.
    """
    source = load_data(data, masks, relabel)
    source = source if sequence is None else replace(source, sequence=sequence)
    evaluations: list[Evaluation] = []
    for name in (model, *([compare] if compare else [])):
        loaded = load_model(name, device, threads)
        config = choose_protocol(loaded, protocol, blend)
        folder = out if not compare or out is None else out / ("first" if not evaluations else "second")
        evaluations.append(evaluated(loaded, config, source, split, limit, folder, name))
        print_scores(evaluations[-1], f"{name} on {source.name}, {split}")
    if compare:
        compared(evaluations, (model, compare), out)
    for evaluation in evaluations:
        print(f"mIoU {evaluation.miou:.4f}")


def compared(evaluations: "Sequence[Evaluation]", names: tuple[str, str], out: Path | None) -> None:
    """Print how two evaluations differ, and write a page about it into the folder ``out``, if that is given."""
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
    """Evaluate a model with a progress bar; if ``out`` is given, write scores.json and report.html into this folder."""
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
    """Print the scores of each class, their means, the confidence interval of the mIoU and the calibration error."""
    from segformer.cli.table import print_paragraph, print_table

    scores = evaluation.scores
    columns = (scores.iou, evaluation.boundary_iou, scores.accuracy, scores.frequency)
    rows = [[name, *map(in_percent, values)] for name, *values in zip(scores.classes, *columns, strict=True)]
    print_table(["class", "IoU", "boundary IoU", "accuracy", "pixels"], rows, title=f"{title} (in %)")
    low, high = evaluation.interval
    calibration = evaluation.calibration
    print("  ".join(f"{name} {value:.4f}" for name, value in scores.summary().items()))
    print_paragraph(f"95 % confidence interval of the mIoU: {low:.4f} - {high:.4f} (bootstrap over {evaluation.unit})")
    print_paragraph(
        f"calibration error {calibration.ece:.4f}; {calibration.ece_after:.4f} if the logits are divided by "
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
        "low, high: 95 % confidence interval of the change. *: significant at 5 % in a permutation test over images; "
        "the p-values of the classes are corrected with Holm's method"
    )


def in_percent(share: float) -> str:
    """Write a share in percent; NaN becomes a dash.

    >>> in_percent(0.5), in_percent(math.nan)
    ('50.00', '-')
    """
    return "-" if math.isnan(share) else f"{100 * share:.2f}"
