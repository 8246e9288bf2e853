"""``segformer demo``: the whole journey on drawn streets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from segformer.cli.arguments import call


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(demo, arguments)


def demo(
    *,
    out: Annotated[Path, arg(metavar="DIR", help="Folder for the results; replaces an earlier demo there.")] = Path(
        "demo"
    ),
    steps: Annotated[int | None, arg(metavar="N", help="Number of optimizer steps; None: as in the recipe.")] = None,
) -> None:
    """Train, evaluate and predict on streets drawn on the spot, and write a report: minutes on two CPU cores."""
    from segformer.cli.demo_run import run_demo

    run_demo(out, steps)
