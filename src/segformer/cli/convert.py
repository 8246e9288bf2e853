"""``segformer convert``: from one checkpoint layout to another."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from segformer.cli.arguments import call


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(convert, arguments)


def convert(
    source: Annotated[Positional[str], arg(metavar="SRC", help="Any checkpoint: file, folder or hub id.")],
    target: Annotated[Positional[Path], arg(metavar="DST", help="Folder to write; it must not exist.")],
    /,
    *,
    to: Annotated[Literal["segformer", "hf", "smp", "nvlabs"], arg(help="Layout to write.")] = "segformer",
) -> None:
    """Convert a checkpoint: reads NVlabs, mmsegmentation (encoder), transformers, SMP, TAO and model folders.

    Says what was left out and what the target can not hold.
    """
    from segformer.checkpoints.conversion import convert as run

    for note in run(source, target, to):
        print(f"note: {note}", file=sys.stderr)
    print(f"wrote {target} ({to})")
