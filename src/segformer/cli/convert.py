"""``segformer convert``: write a model in another checkpoint format."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import ANY_MODEL, call
from segformer.validation import OneOf


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(convert, arguments)


def convert(
    source: Annotated[
        Positional[str],
        arg(metavar="MODEL", help=ANY_MODEL),
        OneOf("checkpoints.formats.FORMATS", "Readable formats of other projects"),
    ],
    target: Annotated[Positional[Path], arg(metavar="FOLDER", help="Folder to write; it must not exist yet.")],
    /,
    *,
    to: Annotated[
        str, arg(metavar="FORMAT", help="Format to write."), OneOf("checkpoints.conversion.targets")
    ] = "segformer",
) -> None:
    """Convert a model to another checkpoint format, and print a note on everything that was left out or changed."""
    from segformer.checkpoints.conversion import convert as run

    for note in run(source, target, to):
        print(f"note: {note}", file=sys.stderr)
    print(f"wrote {target} ({to})")
