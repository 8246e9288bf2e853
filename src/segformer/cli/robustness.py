"""``segformer robustness``: score a model on corrupted images."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import (
    ANY_MODEL,
    DataArgument,
    DeviceArgument,
    ThreadsArgument,
    call,
    load_data,
    load_model,
    print_note,
)
from segformer.cli.table import print_paragraph, print_table
from segformer.validation import OneOf

if TYPE_CHECKING:
    from segformer.robustness.result import Robustness

RelabelArgument = Annotated[
    tuple[tuple[str, str], ...], arg(help="Classes to rename, merge or ignore, as data.relabel in training.")
]
CorruptionsArgument = Annotated[
    tuple[str, ...],
    arg(metavar="NAME...", help="Corruptions to measure; none: all."),
    OneOf("robustness.corruptions.CORRUPTIONS"),
]
FrostArgument = Annotated[
    Path | None, arg(metavar="DIR", help="Folder of the five frost photographs of ImageNet-C; None: ice is drawn.")
]
OutArgument = Annotated[
    Path, arg(metavar="DIR", help="Folder for the results; an interrupted measurement there is resumed.")
]


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(robustness, arguments)


def robustness(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Split to measure on: train, val or test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="Folder of the masks, as data.masks in training.")] = "",
    relabel: RelabelArgument = (),
    limit: Annotated[int | None, arg(metavar="N", help="Number of images to take from the split; None: all.")] = None,
    corruptions: CorruptionsArgument = (),
    severities: Annotated[tuple[int, ...], arg(metavar="N...", help="Severities from 1 to 5.")] = (1, 2, 3, 4, 5),
    seed: Annotated[int, arg(help="Seed of the random numbers in the corruptions.")] = 0,
    frost: FrostArgument = None,
    out: OutArgument = Path("robustness"),
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
    workers: Annotated[int, arg(help="Processes that read and corrupt images.")] = 2,
) -> None:
    """Score a model on corrupted images at several severities, as Table 5 does on Cityscapes-C.

    Writes DIR/report.html, DIR/robustness.json and every finished cell (a corruption at a severity) below DIR/cells.
    After Ctrl-C the same command resumes with the first unfinished cell.
    """
    from segformer.robustness.cells import robustness as measure_cells
    from segformer.robustness.page import write_results

    source = load_data(data, masks, relabel)
    loaded = load_model(model, device, threads)
    measure = partial(measure_cells, loaded, source, split, limit=limit, workers=workers, seed=seed, frost=frost)
    result = stoppable(
        partial(measure, corruptions=corruptions or None, severities=severities, out=out, note=print_note),
        f"finished cells are kept in {out}; run the same command to resume",
    )
    page = write_results(out, result, loaded, source, split, frost=frost)
    print_result(result, f"{model} on {source.name}, {split}", page)


def stoppable(measure: "Callable[..., Robustness]", hint: str) -> "Robustness":
    """Call ``measure(progress=...)`` with a progress bar; Ctrl-C or SIGTERM ends it after the current image."""
    from segformer.cli.terminal import progress_of
    from segformer.training.processes import stop_signals

    with stop_signals() as stop, progress_of("robustness") as show:

        def advance(done: int, total: int) -> None:
            show(done, total)
            if stop:  # between two images: a worker that is killed while it sends an image would complain
                print_note(hint)
                sys.exit(128 + stop[0])

        return measure(progress=advance)


def print_result(result: "Robustness", title: str, page: Path) -> None:
    """Print a table for each group, where the page is, and the means in a last line."""
    from segformer.robustness.table5 import REPORTED, RULE, group_table

    print_paragraph(f"{title}: mIoU in %. {RULE}")
    for group in result.groups:
        table = group_table(result, group)
        print()
        print_table(table.headings, table.rows)
    print()
    print_paragraph(f"* {REPORTED}. Frost: {result.setting['frost']}.")
    print(f"wrote {page}")
    corrupted = result.corrupted_miou
    retained = 100 * result.retained(corrupted)
    print(f"mIoU clean {result.clean.miou:.4f}  corrupted {corrupted:.4f}  retained {retained:.0f} %")
