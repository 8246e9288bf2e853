"""``segformer submission``: write the files that a test server expects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segformer.cli.arguments import (
    ANY_MODEL,
    DeviceArgument,
    Protocol,
    ThreadsArgument,
    call,
    choose_protocol,
    load_model,
)
from segformer.validation import OneOf

SERVER_NAMES = OneOf("evaluation.submission.SERVERS")


def run(arguments: Sequence[str]) -> None:
    """Parse the arguments and run the command."""
    call(submission, arguments)


def submission(
    model: Annotated[Positional[str], arg(metavar="MODEL", help=ANY_MODEL)],
    images: Annotated[Positional[Path], arg(metavar="IMAGES", help="Folder of the test images.")],
    /,
    *,
    to: Annotated[str, arg(metavar="NAME", help="Data set to whose test server the files are sent."), SERVER_NAMES],
    out: Annotated[
        Path, arg(metavar="DIR", help="Folder for the files; masks that already exist in it are not computed again.")
    ],
    protocol: Annotated[Protocol, arg(help="Test protocol; own: the protocol in the model's config.json.")] = "own",
    device: DeviceArgument = "auto",
    threads: ThreadsArgument = 0,
) -> None:
    """Write the files for a test server: for each test image, a PNG with the label ids that the server expects."""
    from segformer.cli.terminal import progress_of
    from segformer.evaluation.submission import write_submission

    loaded = load_model(model, device, threads)
    with progress_of("segment") as progress:
        count = write_submission(
            loaded,
            images,
            to,
            out,
            config=choose_protocol(loaded, protocol, None),
            progress=progress,
        )
    print(f"{count} masks in {out}; zip the folder and upload it")
