"""The command that measures robustness to corruptions."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import ANY_MODEL, DataArgument, DeviceArgument, call, load_data, load_model, print_note


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(robustness, arguments)


def robustness(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    /,
    *,
    data: DataArgument,
    split: Annotated[str, arg(help="Which images: train, val, test.")] = "val",
    masks: Annotated[str, arg(metavar="DIR", help="As data.masks in training.")] = "",
    relabel: Annotated[tuple[tuple[str, str], ...], arg(help="As data.relabel in training.")] = (),
    limit: Annotated[int | None, arg(help="Only the first N images.")] = None,
    corruptions: Annotated[tuple[str, ...], arg(metavar="NAME...", help="Which of the 16; none named: all.")] = (),
    severities: Annotated[tuple[int, ...], arg(metavar="N...", help="Which of 1 to 5.")] = (1, 2, 3, 4, 5),
    seed: Annotated[int, arg(help="Of the random numbers in the corruptions.")] = 0,
    frost: Annotated[
        Path | None, arg(metavar="DIR", help="The five photographs of ImageNet-C; None: ice is drawn.")
    ] = None,
    out: Annotated[Path, arg(metavar="DIR", help="Where results go; a run there is gone on with.")] = Path(
        "robustness"
    ),
    device: DeviceArgument = "auto",
    threads: Annotated[int, arg(help="CPU threads; 0: as many as there are cores.")] = 0,
    workers: Annotated[int, arg(help="Processes that read and corrupt images.")] = 2,
) -> None:
    """Score a model on images under 16 corruptions at 5 severities, as Table 5 does on Cityscapes-C.

    Writes DIR/report.html, DIR/robustness.json and each finished cell; after Ctrl-C the same command goes on.
    """
    from segformer.cli.terminal import progress_of
    from segformer.robustness.cells import robustness as run
    from segformer.robustness.corruptions import NAMES
    from segformer.robustness.page import write_results
    from segformer.robustness.table5 import print_robustness
    from segformer.training.processes import stop_signals

    source = load_data(data, masks, relabel)
    loaded = load_model(model, device, threads)
    with stop_signals() as stop, progress_of("robustness") as show:

        def advance(done: int, total: int) -> None:
            show(done, total)
            if stop:  # between two images: a worker that is cut off while it sends one would complain
                print_note(f"finished cells are in {out}; the same command goes on")
                sys.exit(128 + stop[0])

        result = run(
            loaded,
            source,
            split,
            limit=limit,
            workers=workers,
            seed=seed,
            frost=frost,
            corruptions=corruptions or NAMES,
            severities=severities,
            out=out,
            progress=advance,
            note=print_note,
        )
    page = write_results(out, result, loaded, source, split, frost=frost)
    print_robustness(result, f"{model} on {source.name}, {split}")
    print(f"wrote {page}")
    corrupted, clean = result.corrupted_miou, result.clean.miou
    print(f"mIoU clean {clean:.4f}  corrupted {corrupted:.4f}  retained {100 * result.retained(corrupted):.0f} %")
