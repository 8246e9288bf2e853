"""Arguments that commands share, what they mean, and how a command is called."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from tyro.conf import arg

from segformer.config import Blend, DataConfig, EvalConfig
from segformer.errors import UserError

if TYPE_CHECKING:
    from segformer.data.dataset import DataSource
    from segformer.models.interfaces import Network
    from segformer.models.segmenter import Segmenter

PROGRAM = "segformer"
ANY_MODEL = "Model folder such as runs/<recipe>/best, another project's checkpoint, or a hub id."
ModelArgument = Annotated[str, arg(metavar="MODEL", help=ANY_MODEL)]
DataArgument = Annotated[
    str, arg(metavar="NAME=ROOT|FOLDER", help="A folder whose layout is recognised, NAME=FOLDER, or toytown.")
]
DevicesArgument = Annotated[int, arg(metavar="N", help="Processes, each with a device of its own, on this machine.")]
NodesArgument = Annotated[int, arg(metavar="N", help="Machines, started by torchrun or SLURM.")]
ThreadsArgument = Annotated[int, arg(help="CPU threads; 0: as many as there are cores.")]
Protocol = Literal["own", "whole", "slide", "multiscale"]
DeviceArgument = Annotated[str, arg(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")]


def call(command: Callable[..., Any], arguments: Sequence[str]) -> None:
    """Parse a command's arguments by its signature, and run it."""
    prog = f"{PROGRAM} {command.__name__}"
    tyro.cli(command, args=arguments, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))


def fail(message: str) -> NoReturn:
    """Print an error and exit with status 2."""
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def choose_device(name: str) -> str:
    """Return the device that a name means; raises a UserError where this machine has none such."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if name.split(":")[0] not in available:
        raise UserError(f"--device must be auto, cpu, cuda, cuda:N or mps, got '{name}'")
    if not available[name.split(":")[0]]:
        present = ", ".join(kind for kind, there in available.items() if there)
        raise UserError(f"--device {name} is not available on this machine, which has {present}; leave --device out")
    return name


def set_threads(threads: int) -> None:
    """Limit the CPU threads; 0 leaves torch's choice."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def load_data(data: str, masks: str = "", relabel: Sequence[tuple[str, str]] = ()) -> "DataSource":
    """Open what --data names, and say on standard error how it was read."""
    from segformer.data.sources.catalog import open_data, with_data

    source = open_data(replace(with_data(DataConfig(), data), masks=masks, relabel=tuple(relabel)))
    for note in source.notes:
        print_note(note)
    return source


def print_note(note: str) -> None:
    """Tell the user something, on standard error."""
    print(f"note: {note}", file=sys.stderr)


def load_model(folder: str, device: str, threads: int) -> "Segmenter":
    """Load a model on the chosen device."""
    from segformer.checkpoints.model_folder import load

    set_threads(threads)
    return load(folder, choose_device(device))


def protocol_of(model: "Network", protocol: Protocol, blend: Blend | None) -> EvalConfig:
    """Return the test protocol that was asked for."""
    from segformer.evaluation.evaluate import with_protocol

    card = model.card
    config = card.eval if protocol == "own" else with_protocol(card.eval, protocol, card.preprocessing.short_side)
    return config if blend is None else replace(config, blend=blend)


def resumed_run(arguments: Sequence[str]) -> Path | None:
    """Return the run folder that is to be resumed, where the command line names one."""
    if "--resume" not in arguments or "--run-dir" not in arguments[:-1]:
        return None
    return Path(arguments[arguments.index("--run-dir") + 1])
