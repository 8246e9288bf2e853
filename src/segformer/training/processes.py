"""One run as one process or as many: who speaks first, when to stop, and what to say when one is lost."""

import atexit
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from segformer.errors import UserError

T = TypeVar("T")
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
LOST = ("Connection closed", "Connection reset", "Broken pipe", "NCCL", "Socket Timeout", "Timed out waiting")


class Elsewhere(SystemExit):
    """Ends a process quietly: the first one has said what is wrong."""


def build_fabric(precision: str, device: str, devices: int = 1, nodes: int = 1) -> Fabric:
    """Return the devices of a run, started: those that torchrun or SLURM say, else so many of a kind."""
    if min(devices, nodes) < 1:
        raise UserError(f"devices and nodes must be at least 1, got {devices} and {nodes}")
    kind, _, number = device.partition(":")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    nodes = int(os.environ.get("WORLD_SIZE", here * nodes)) // here
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number else here,
        num_nodes=nodes,
        strategy=DDPStrategy() if here * nodes > 1 else "auto",
        precision=PRECISIONS[precision],
    )
    fabric.launch()
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        atexit.register(end_connection)  # for NCCL Fabric does
    return fabric


def end_connection() -> None:
    """End gloo's threads before the interpreter does: left to run, they abort one process in fifty on its way out."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def started_outside() -> bool:
    """Whether torchrun or SLURM started this process as one of several."""
    return "LOCAL_RANK" in os.environ or os.environ.get("SLURM_NTASKS", "1") != "1"


def is_first() -> bool:
    """Whether this process is the one that speaks."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def device_name(device: torch.device) -> str:
    """Name of a GPU, or cpu, mps."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def first(fabric: Fabric, act: Callable[[], T]) -> T | None:
    """Let the first process act while the others wait; what it raises ends them all, and it alone reports it."""
    if fabric.world_size == 1:
        return act()
    result, error = None, None
    if fabric.global_rank == 0:
        try:
            result = act()
        except (ValueError, OSError, ModuleNotFoundError) as found:
            error = found
    if fabric.broadcast(error is not None):
        if error is not None:
            raise error
        raise Elsewhere(2)
    return result


def agree_to_stop(fabric: Fabric, received: list[signal.Signals]) -> bool:
    """Whether any process was told to stop; then all of them take note of its signal."""
    if fabric.world_size > 1:
        number = torch.tensor(int(received[0]) if received else 0, device=fabric.device)
        highest = int(cast("torch.Tensor", fabric.all_reduce(number, reduce_op="max")))
        if highest and not received:
            received.append(signal.Signals(highest))
    return bool(received)


@contextmanager
def lost_processes(fabric: Fabric) -> Iterator[None]:
    """Turn what the others' silence does to a collective operation into an error that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not any(word in str(error) for word in LOST):
            raise
        raise UserError(
            f"another of the {fabric.world_size} processes of this run has ended; start them all again with --resume"
        ) from error


def launch(arguments: Sequence[str], devices: int) -> int:
    """Run ``segformer`` with these arguments as so many processes, and return the exit status.

    Where one of them fails the others are ended; raises UserError that says which was killed.
    """
    import logging

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.5,
            logs_specs=_no_logs(logs),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "segformer", *arguments)
        except ChildFailedError as failed:
            rank, failure = failed.get_first_failure()
            if failure.exitcode < 0:
                name = signal.Signals(-failure.exitcode).name
                raise UserError(
                    f"process {rank} of {devices} was killed ({name}), and the others ended with it; "
                    f"go on from the last save with --resume"
                ) from None
            return failure.exitcode
    return 0


def _no_logs(folder: str) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

    return DefaultLogsSpecs(log_dir=folder)


@contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Collect Ctrl-C and SIGTERM instead of dying of them; a second Ctrl-C stops at once."""
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, _: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
