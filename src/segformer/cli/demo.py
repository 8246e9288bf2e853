"""``segformer demo``: train, evaluate and predict on a data set of drawn streets."""

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
    out: Annotated[Path, arg(metavar="DIR", help="Folder for the results; an earlier demo in it is replaced.")] = Path(
        "demo"
    ),
    steps: Annotated[
        int | None, arg(metavar="N", help="Number of optimizer steps; None: as in recipe toytown_b0.")
    ] = None,
) -> None:
    """Train, evaluate and predict on a data set of drawn streets, and write a report.

    The command draws the streets itself. It takes a few minutes in all on two CPU cores.
    """
    from segformer.cli.demo_run import run_demo

    run_demo(out, steps)
