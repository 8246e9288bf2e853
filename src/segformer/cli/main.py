"""The command line: which command runs, and what becomes of its errors."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from segformer.cli.arguments import PROGRAM, fail
from segformer.errors import UserError

COMMANDS = {
    "demo": "Train, evaluate and predict on drawn streets: a first look.",
    "train": "Train a model as a recipe says.",
    "pretrain": "Train an encoder to classify images.",
    "inspect": "Look at a data set before any training.",
    "evaluate": "Score a model on a data set.",
    "submission": "Write the files that a test server takes.",
    "robustness": "Score a model on corrupted images.",
    "predict": "Segment images.",
    "erf": "Measure what a model sees: effective receptive fields.",
    "info": "Say what a model is.",
    "convert": "Convert a checkpoint to another layout.",
    "reproduce": "Print a table of the paper beside our own counts.",
}
"""Each is a module here with ``run(arguments)``; it is imported when it is called."""

EXTRAS = {  # the extra that installs a package
    **dict.fromkeys(("lightning_fabric", "tensorboard"), "train"),
    "cv2": "robustness",
    "tifffile": "tiff",
    "imagecodecs": "tiff",
    "rasterio": "large",
    "datasets": "hub-data",
    "timm": "pretrain",
    "wandb": "wandb",
}
OS_ERRORS = {  # what a user can cause
    errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR,
    errno.ENOTEMPTY, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.EADDRINUSE,
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Exit status: 2 for what a user can correct, said in one line; 130 after Ctrl-C, 143 after SIGTERM; 1 for a bug of
    this package, whose traceback goes to a file that the one line names.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        run_command(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        fail(one_line(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            report_bug(error)
        fail(f"this needs the package {package}: pip install '{PROGRAM}[{EXTRAS[package]}]'")
    except OSError as error:
        if error.errno not in OS_ERRORS:
            report_bug(error)
        fail(f"{error.filename}: {error.strerror}" if error.filename else one_line(error))
    except Exception as error:
        report_bug(error)


def run_command(arguments: list[str]) -> None:
    """Run what the first argument names; raises a UserError that names the closest command."""
    name, *rest = arguments
    if name == "--version":
        print(f"{PROGRAM} {version(PROGRAM)}")
    elif name in ("--help", "-h"):
        print_help()
    else:
        from segformer.config import check_choice

        check_choice("COMMAND", name, COMMANDS)
        import_module(f"segformer.cli.{name}").run(rest)


def print_help() -> None:
    """Say what the commands are."""
    print(f"usage: {PROGRAM} COMMAND [ARGUMENTS]\n\nSemantic segmentation with SegFormer: train, evaluate, predict.\n")
    for name, summary in COMMANDS.items():
        print(f"  {name:<11} {summary}")
    print(f"\n{PROGRAM} demo shows everything on drawn streets. {PROGRAM} COMMAND --help explains a command.")


def one_line(error: Exception) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def report_bug(error: Exception) -> None:
    """Write the traceback to a file, say where in one line, and exit with status 1."""
    if os.environ.get("SEGFORMER_TRACEBACK"):
        raise error
    with tempfile.NamedTemporaryFile("w", prefix=f"{PROGRAM}-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    message = f"{type(error).__name__}: {one_line(error)}"
    print(f"error: this is a bug of {PROGRAM} ({message}); its traceback is in {Path(file.name)}", file=sys.stderr)
    sys.exit(1)
