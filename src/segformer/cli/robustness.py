"""``segformer robustness``: score a model on corrupted images."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import ANY_MODEL, DataArgument, DeviceArgument, call, load_data, load_model, print_note


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(robustness, arguments)


def known_corruptions(default: str) -> str:
    """List the corruptions for the help, without importing torch or OpenCV."""
    from segformer.robustness.corruptions import corruption_names

    return f"({', '.join(corruption_names())}; default: all)"


def robustness(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Split to measure on: train, val or test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="Folder of the masks, as data.masks in training.")] = "",
    relabel: Annotated[
        tuple[tuple[str, str], ...], arg(help="Classes to rename, merge or ignore, as data.relabel in training.")
    ] = (),
    limit: Annotated[int | None, arg(help="Number of images to take from the split; None: all.")] = None,
    corruptions: Annotated[
        tuple[str, ...],
        arg(metavar="NAME...", help="Corruptions to measure.", help_behavior_hint=known_corruptions),
    ] = (),
    severities: Annotated[tuple[int, ...], arg(metavar="N...", help="Severities to measure, from 1 to 5.")] = (
        1,
        2,
        3,
        4,
        5,
    ),
    seed: Annotated[int, arg(help="Seed of the random numbers in the corruptions.")] = 0,
    frost: Annotated[
        Path | None, arg(metavar="DIR", help="Folder of the five frost photographs of ImageNet-C; None: ice is drawn.")
    ] = None,
    out: Annotated[
        Path, arg(metavar="DIR", help="Folder for the results; an interrupted measurement there is resumed.")
    ] = Path("robustness"),
    device: DeviceArgument = "auto",
    threads: Annotated[int, arg(help="CPU threads; 0: one per core.")] = 0,
    workers: Annotated[int, arg(help="Processes that read and corrupt images.")] = 2,
) -> None:
    """Score a model on corrupted images at several severities, as Table 5 does on Cityscapes-C.

    Writes DIR/report.html, DIR/robustness.json and every finished cell (a corruption at a severity) below DIR/cells.
    After Ctrl-C the same command resumes with the first unfinished cell.
    """
    from segformer.cli.terminal import progress_of
    from segformer.robustness.cells import robustness as measure
    from segformer.robustness.page import write_results
    from segformer.robustness.table5 import robustness_text
    from segformer.training.processes import stop_signals

    source = load_data(data, masks, relabel)
    loaded = load_model(model, device, threads)
    with stop_signals() as stop, progress_of("robustness") as show:

        def advance(done: int, total: int) -> None:
            show(done, total)
            if stop:  # between two images: a worker that is killed while it sends an image would complain
                print_note(f"finished cells are kept in {out}; run the same command to resume")
                sys.exit(128 + stop[0])

        result = measure(
            loaded,
            source,
            split,
            limit=limit,
            workers=workers,
            seed=seed,
            frost=frost,
            corruptions=corruptions or None,
            severities=severities,
            out=out,
            progress=advance,
            note=print_note,
        )
    page = write_results(out, result, loaded, source, split, frost=frost)
    print(robustness_text(result, f"{model} on {source.name}, {split}"))
    print(f"wrote {page}")
    corrupted = result.corrupted_miou
    retained = 100 * result.retained(corrupted)
    print(f"mIoU clean {result.clean.miou:.4f}  corrupted {corrupted:.4f}  retained {retained:.0f} %")
