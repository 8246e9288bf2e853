"""``segformer reproduce``: the paper's tables beside what this package counts."""

from collections.abc import Sequence
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from segformer.cli.arguments import call
from segformer.paper.tables import NAMES as TABLES


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(reproduce, arguments)


def reproduce(
    table: Annotated[Positional[Literal[TABLES]], arg(metavar="|".join(TABLES), help="Which one.")],  # type: ignore[valid-type]
    /,
) -> None:
    """Print a table of the paper beside what this package counts, and how to fill the columns that need data."""
    from segformer.paper.tables import reproduce as run

    run(table)
