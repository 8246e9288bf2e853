"""Arguments that several commands share, and the functions that act on them."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from segformer.cli.main import PROGRAM as PROGRAM
from segformer.cli.main import fail as fail
from segformer.cli.parsing import call as call
from segformer.cli.parsing import parse as parse
from segformer.config import Blend, DataConfig, EvalConfig
from segformer.errors import UserError
from segformer.validation import OneOf

if TYPE_CHECKING:
    from segformer.data.dataset import DataSource
    from segformer.models.interfaces import Network
    from segformer.models.segmenter import Segmenter

ANY_MODEL = "Model: a folder such as runs/RECIPE/best, a checkpoint of another project, or a Hugging Face id."
ANY_DATA = "Data set: a folder whose layout is recognized, NAME=FOLDER, hub:OWNER/NAME on Hugging Face, or toytown."
ModelArgument = Annotated[str, arg(metavar="MODEL", help=ANY_MODEL)]
DATA_NAMES = OneOf("data.sources.SOURCES", "NAME is one of")
DataArgument = Annotated[str, arg(metavar="FOLDER|NAME=FOLDER", help=ANY_DATA), DATA_NAMES]
DevicesArgument = Annotated[
    int, arg(metavar="N", help="Number of devices to use on this machine; each has its own process.")
]
NodesArgument = Annotated[
    int, arg(metavar="N", help="Number of machines in the run, if torchrun or SLURM starts the processes.")
]
ThreadsArgument = Annotated[int, arg(metavar="N", help="Number of CPU threads; 0: PyTorch's default, one per core.")]
SplitArgument = Annotated[str, arg(metavar="NAME", help="Split to use, such as train, val or test.")]
MasksArgument = Annotated[
    str,
    arg(
        metavar="DIR",
        help="Folder of the masks, if it is not masks/ in the data folder; the same as --data.masks in train.",
    ),
]
RelabelArgument = Annotated[
    tuple[tuple[str, str], ...],
    arg(
        metavar="CLASS NEW ...",
        help='Pairs of a class and its new name, to rename or merge classes; "" ignores a class. As --data.relabel in '
        "train.",
    ),
]
LimitArgument = Annotated[
    int | None, arg(metavar="N", help="Number of images to use, counted from the first of the split; None: all.")
]
Protocol = Literal["own", "whole", "slide", "multiscale"]
DeviceArgument = Annotated[
    str, arg(metavar="auto|cpu|cuda|cuda:N|mps", help="Device to compute on; auto: a GPU if there is one.")
]


def choose_device(name: str) -> str:
    """Return the name of a device; auto becomes cuda, mps or cpu.  Raises a UserError if the device does not exist."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind, colon, number = name.partition(":")
    if kind == "auto" and not colon:
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if kind not in available or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"--device must be auto, cpu, cuda, cuda:N or mps, got '{name}'")
    if not available[kind]:
        present = ", ".join(kind for kind, there in available.items() if there)
        raise UserError(f"--device {name} is not available on this machine, which has {present}; leave --device out")
    if number and int(number) >= torch.cuda.device_count():
        raise UserError(f"--device {name} does not exist; this machine has cuda:0 to {torch.cuda.device_count() - 1}")
    return name


def set_threads(threads: int) -> None:
    """Set the number of CPU threads; 0 leaves the choice to torch."""
    import torch

    if threads < 0:
        raise UserError(f"--threads must be 0 or more, got {threads}")
    if threads:
        torch.set_num_threads(threads)


def load_data(data: str, masks: str = "", relabel: Sequence[tuple[str, str]] = ()) -> "DataSource":
    """Open the data set that ``data`` names, and print notes on how it was read to standard error."""
    from segformer.data.sources.catalog import open_data, with_data

    source = open_data(replace(with_data(DataConfig(), data), masks=masks, relabel=tuple(relabel)))
    for note in source.notes:
        print_note(note)
    return source


def print_note(note: str) -> None:
    """Print a note to standard error."""
    print(f"note: {note}", file=sys.stderr)


def load_model(folder: str, device: str, threads: int) -> "Segmenter":
    """Load a model onto a device, and set the number of CPU threads."""
    from segformer.checkpoints.model_folder import load

    set_threads(threads)
    return load(folder, choose_device(device))


def choose_protocol(model: "Network", protocol: Protocol, blend: Blend | None) -> EvalConfig:
    """Return the named test protocol; "own" is the protocol stored with the model.

    If ``blend`` is given, it replaces the ``blend`` of the protocol.
    """
    from segformer.evaluation.evaluate import with_protocol

    card = model.card
    config = card.eval if protocol == "own" else with_protocol(card.eval, protocol, card.preprocessing.short_side)
    return config if blend is None else replace(config, blend=blend)
