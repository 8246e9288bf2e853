"""``segformer inspect``: look at a data set before any training."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import DeviceArgument, call, choose_device
from segformer.recipes import find_recipe


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(inspect, arguments)


def inspect(
    data: Annotated[Positional[str], arg(metavar="DATA", help="As --data: a folder, NAME=FOLDER, or toytown.")],
    /,
    *,
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Write diagnosis.json and two sheets of pictures there.")
    ] = None,
    cheap: Annotated[bool, arg(help="Only what needs no decoding: files, sizes, kinds.")] = False,
    recipe: Annotated[str, arg(metavar="RECIPE", help="Whose step is measured.")] = "folder_b0",
    device: DeviceArgument = "auto",
) -> None:
    """Look at a data set before any training: what is wrong, how to mend it, what is in it, what a step will take.

    Ends with ready, or with exit status 2 where training would fail.
    """
    from rich.console import Console

    from segformer.cli.terminal import costs, progress_of
    from segformer.data.doctor.diagnosis import inspect as run
    from segformer.data.doctor.diagnosis import show
    from segformer.data.doctor.sheets import recipe_for, write_sheets
    from segformer.files import write_json

    base, place = find_recipe(recipe), choose_device(device)
    with progress_of("inspect") as progress:
        diagnosis = run(data, cheap=cheap, progress=progress)
    fitting = recipe_for(base, data, diagnosis)
    if out:
        write_json(out / "diagnosis.json", diagnosis.to_json())
        for path in write_sheets(fitting, out, augmented=diagnosis.ready):
            print(f"wrote {path}")
    show(diagnosis, Console(), costs(fitting, place) if diagnosis.ready and not cheap else ())
    if not diagnosis.ready:
        sys.exit(2)
