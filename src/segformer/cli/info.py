"""``segformer info``: what a model is."""

from collections.abc import Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import ANY_MODEL, call


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(info, arguments)


def info(model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)], /) -> None:
    """Say what a model is: architecture, parameters, classes, preprocessing, test protocol, where it comes from."""
    from segformer.checkpoints.model_folder import read_weights
    from segformer.cli.terminal import print_info

    print_info(model, read_weights(model))
