"""``segformer evaluate``: score a model on a data set."""

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
    call,
    load_data,
    load_model,
    protocol_of,
)
from segformer.config import Blend

if TYPE_CHECKING:
    from segformer.config import EvalConfig
    from segformer.data.dataset import DataSource
    from segformer.evaluation.examination import Examination
    from segformer.models.segmenter import Segmenter


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(evaluate, arguments)


def evaluate(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Which images: train, val, test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="As data.masks in training.")] = "",
    relabel: Annotated[tuple[tuple[str, str], ...], arg(help="As data.relabel in training.")] = (),
    protocol: Annotated[Protocol, arg(help="Test protocol; own: the one the model carries.")] = "own",
    blend: Annotated[Blend | None, arg(help="How overlapping windows count; None: as the model carries it.")] = None,
    limit: Annotated[int | None, arg(help="Only the first N images.")] = None,
    compare: Annotated[str | None, arg(metavar="MODEL", help="A second model, on the same images.")] = None,
    sequence: Annotated[
        str | None, arg(help="Pattern of the start of a name that frames of one sequence share, for the interval.")
    ] = None,
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Write scores.json and report.html there, and go on from there.")
    ] = None,
    device: DeviceArgument = "auto",
    threads: Annotated[int, arg(help="CPU threads; 0: as many as there are cores.")] = 0,
) -> None:
    """Score a model on a data set: IoU and accuracy of each class, mIoU, mAcc, aAcc, at the labels' own size.

    With --out an evaluation that was interrupted goes on where it stood, and a page shows classes, confusions,
    calibration and the worst images.
    """
    from segformer.cli.terminal import print_comparison, print_scores

    source = load_data(data, masks, relabel)
    source = source if sequence is None else replace(source, sequence=sequence)
    found: list[Examination] = []
    for name in (model, *([compare] if compare else [])):
        loaded = load_model(name, device, threads)
        config = protocol_of(loaded, protocol, blend)
        place = out if not compare or out is None else out / ("first" if not found else "second")
        found.append(examined(loaded, source, split, config, limit, place, name))
        print_scores(found[-1], f"{name} on {source.name}, {split}")
    if len(found) == 2 and compare:
        comparison = found[0].compare(found[1])
        print_comparison(comparison, found[0], (model, compare))
        if out:
            from segformer.evaluation.page import write_comparison_page

            print(f"wrote {write_comparison_page(out, (model, compare), found[0], comparison)}")
    for examination in found:
        print(f"mIoU {examination.scores.miou:.4f}")


def examined(
    model: "Segmenter",
    source: "DataSource",
    split: str,
    config: "EvalConfig",
    limit: int | None,
    out: Path | None,
    name: str,
) -> "Examination":
    """Examine a model under a progress bar, and write what was found."""
    from segformer.cli.terminal import progress_of
    from segformer.evaluation.evaluate import examine
    from segformer.evaluation.page import write_evaluation_page
    from segformer.files import write_json

    with progress_of("evaluate") as progress:
        found = examine(
            model,
            source,
            split,
            config=config,
            limit=limit,
            progress=progress,
            keep=out / "counts.npz" if out else None,
        )
    if out:
        write_json(out / "scores.json", found.to_json())
        print(f"wrote {write_evaluation_page(out, name, model, source, split, config, found)}")
    return found
