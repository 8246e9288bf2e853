"""The command line: it runs a command, and turns an error into one line of text and an exit status."""

import errno
import io
import os
import select
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from segformer.errors import UserError, is_out_of_memory
from segformer.validation import check_choice

PROGRAM = "segformer"
COMMANDS = {
    "demo": "Train, evaluate and predict on drawn streets: a first look.",
    "train": "Train a model with a recipe.",
    "pretrain": "Train an encoder to classify images.",
    "inspect": "Check a data set before training.",
    "evaluate": "Score a model on a data set.",
    "submission": "Write the files that a test server expects.",
    "robustness": "Score a model on corrupted images.",
    "predict": "Segment images.",
    "erf": "Measure effective receptive fields: what a model sees.",
    "info": "Describe a model: its size, cost, architecture and classes.",
    "convert": "Convert a checkpoint to another format.",
    "reproduce": "Print a table of the paper next to our own counts.",
}
"""Summary of each command.  A command is a module of this package with ``run(arguments)``, imported when it is used."""

EXTRAS = {
    **dict.fromkeys(("lightning_fabric", "tensorboard"), "train"),
    "cv2": "robustness",
    "tifffile": "tiff",
    "imagecodecs": "tiff",
    "rasterio": "large",
    "datasets": "hub-data",
    "timm": "pretrain",
    "wandb": "wandb",
}
"""For each optional module, the extra of this package that installs the module."""
OS_ERRORS = {
    *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENOMEM),
    *(errno.EADDRINUSE, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH),
}
"""Error numbers (errno) of the operating system for errors that a user can cause and correct."""
OUT_OF_MEMORY = "out of memory; use fewer or smaller images at a time, or another --device"


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    The exit status is 2 for an error that a user can correct, 130 after Ctrl-C, 143 after SIGTERM, 141 if the process
    that reads the output has ended, and 1 for a bug of this package.  An error is printed in one line; for a bug, the
    line names the file that contains the traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        with sigterm_as_exit():
            try:
                run_command(arguments)
            finally:
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message = user_message(error)
        if message is not None:
            fail(message)
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            sys.exit(141)
        report_bug(error)


def run_command(arguments: list[str]) -> None:
    """Run the command that the first argument names; a UserError about an unknown name suggests the closest command."""
    name, *rest = arguments
    if name == "--version":
        print(f"{PROGRAM} {version(PROGRAM)}")
    elif name in ("--help", "-h"):
        print_help()
    else:
        check_choice("COMMAND", name, COMMANDS)
        import_module(f"segformer.cli.{name}").run(rest)


def print_help() -> None:
    """Print the list of commands."""
    print(f"usage: {PROGRAM} COMMAND [ARGUMENTS]\n\nSemantic segmentation with SegFormer: train, evaluate, predict.\n")
    for name, summary in COMMANDS.items():
        print(f"  {name:<11} {summary}")
    print(f"\nTo list the arguments of a command: {PROGRAM} COMMAND --help. For a first look: {PROGRAM} demo.")


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into an exit of the block with status 143, so that partly written files are cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def user_message(error: Exception) -> str | None:
    """Return one line about an error that a user can correct; for any other error, return None."""
    if isinstance(error, UserError):
        return one_line(str(error))
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in EXTRAS:
            return f"this needs the package {package}: pip install '{PROGRAM}[{EXTRAS[package]}]'"
    if isinstance(error, OSError) and error.errno in OS_ERRORS:
        return f"{error.filename}: {error.strerror}" if error.filename else one_line(str(error))
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return None


def reader_is_gone() -> bool:
    """Return whether the reader of standard output, such as ``head``, has ended; if so, discard further output."""
    try:
        output = sys.stdout.fileno()
    except io.UnsupportedOperation:  # standard output was replaced by something in memory
        return False
    poll = select.poll()
    poll.register(output, 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def one_line(text: str) -> str:
    """Replace the line breaks of a text by spaces."""
    return " ".join(text.split())


def fail(message: str) -> NoReturn:
    """Print each line of a message as an error, and exit with status 2."""
    for line in message.splitlines() or ["unknown"]:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def report_bug(error: Exception) -> NoReturn:
    """Write the traceback to a file, print one line that names the file, and exit with status 1.

    With SEGFORMER_TRACEBACK=1 in the environment, the error is raised instead.
    """
    if os.environ.get("SEGFORMER_TRACEBACK"):
        raise error
    with tempfile.NamedTemporaryFile("w", prefix=f"{PROGRAM}-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    lines = str(error).strip().splitlines()  # an error from a worker process ends with the original error
    message = textwrap.shorten(f"{type(error).__name__}: {lines[-1] if lines else ''}", 200, placeholder=" ...")
    print(f"error: this is a bug in {PROGRAM} ({message}); the traceback is in {file.name}", file=sys.stderr)
    sys.exit(1)
