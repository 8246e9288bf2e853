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
    LimitArgument,
    MasksArgument,
    RelabelArgument,
    SplitArgument,
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


CorruptionsArgument = Annotated[
    tuple[str, ...],
    arg(metavar="NAME...", help="Corruptions to measure; if left out, all."),
    OneOf("robustness.corruptions.CORRUPTIONS"),
]
FrostArgument = Annotated[
    Path | None, arg(metavar="DIR", help="Folder with the five frost photographs of ImageNet-C; None: draw the ice.")
]
OutArgument = Annotated[
    Path, arg(metavar="DIR", help="Folder for the results; an interrupted measurement in it is resumed.")
]


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(robustness, arguments)


def robustness(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: SplitArgument = "val",
    masks: MasksArgument = "",
    relabel: RelabelArgument = (),
    limit: LimitArgument = None,
    corruptions: CorruptionsArgument = (),
    severities: Annotated[tuple[int, ...], arg(metavar="N...", help="Severities to measure, from 1 to 5.")] = (
        1,
        2,
        3,
        4,
        5,
    ),
    seed: Annotated[int, arg(help="Seed for the random numbers in the corruptions.")] = 0,
    frost: FrostArgument = None,
    out: OutArgument = Path("robustness"),
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
    workers: Annotated[int, arg(help="Number of processes that read and corrupt images.")] = 2,
) -> None:
    """Score a model on corrupted images at several severities, as Table 5 does on Cityscapes-C.

    Writes DIR/report.html and DIR/robustness.json. The scores of each corruption and severity are stored in DIR/cells
    as soon as they are measured; after Ctrl-C, run the same command again to measure only what is missing.
    """
    from segformer.robustness.cells import robustness as measure_cells
    from segformer.robustness.page import write_results

    source = load_data(data, masks, relabel)
    loaded = load_model(model, device, threads)
    measure = partial(measure_cells, loaded, source, split, limit=limit, workers=workers, seed=seed, frost=frost)
    result = stoppable(
        partial(measure, corruptions=corruptions or None, severities=severities, out=out, note=print_note),
        f"the scores measured so far are stored in {out}; run the same command to resume",
    )
    page = write_results(out, result, loaded, source, split, frost=frost)
    print_result(result, f"{model} on {source.name}, {split}", page)


def stoppable(measure: "Callable[..., Robustness]", hint: str) -> "Robustness":
    """Call ``measure(progress=...)`` with a progress bar; after Ctrl-C or SIGTERM, print ``hint`` and exit.

    The process exits only after the current image is done.
    """
    from segformer.cli.terminal import progress_of
    from segformer.training.processes import stop_signals

    with stop_signals() as stop, progress_of("robustness") as show:

        def advance(done: int, total: int) -> None:
            show(done, total)
            if stop:  # only between two images: a worker killed while it sends an image prints an error
                print_note(hint)
                sys.exit(128 + stop[0])

        return measure(progress=advance)


def print_result(result: "Robustness", title: str, page: Path) -> None:
    """Print a table for each group of corruptions, the path of the page and, in the last line, the mean scores."""
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
