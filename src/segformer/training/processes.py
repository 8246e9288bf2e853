"""A run in one or several processes: start, reports by the first process only, common stop, and loss of a process."""

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
REPORTED = (UserError, OSError, ModuleNotFoundError)  # errors that the command line reports in one line, with status 2
# Parts of the messages of torch when another process has ended.
LOST = ("Connection closed", "Connection reset", "Broken pipe", "NCCL", "Socket Timeout", "Timed out waiting")


class SilentExit(SystemExit):
    """Ends a process without a message, because the first process reports the error."""


def build_fabric(precision: str, device: str, devices: int = 1, nodes: int = 1) -> Fabric:
    """Launch Fabric on ``devices`` devices of each of ``nodes`` machines; torchrun and SLURM override both numbers."""
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
        atexit.register(end_connection)  # Fabric does this for NCCL
    return fabric


def end_connection() -> None:
    """End the threads of gloo before the interpreter exits; otherwise about one process in fifty aborts at its exit."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def started_outside() -> bool:
    """Return whether torchrun or SLURM started this process as one of several."""
    return "LOCAL_RANK" in os.environ or os.environ.get("SLURM_NTASKS", "1") != "1"


def is_rank_zero() -> bool:
    """Return whether this is the first process, which reports for all."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def device_name(device: torch.device) -> str:
    """Return the product name of a GPU, or the type of any other device, such as "cpu" or "mps"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def on_rank_zero(fabric: Fabric, act: Callable[[], T]) -> T | None:
    """Call a function in the first process while the others wait; the first returns the result, the others None.

    An error that the function raises ends all processes, and only the first one reports it.
    """
    if fabric.world_size == 1:
        return act()
    result: T | None = None
    error: Exception | None = None
    if fabric.global_rank == 0:
        try:
            result = act()
        except Exception as found:
            error = found
    status = 0 if error is None else 2 if isinstance(error, REPORTED) else 1
    if status := fabric.broadcast(status):
        if error is not None:
            raise error
        raise SilentExit(status)
    return result


def agree_to_stop(fabric: Fabric, received: list[signal.Signals]) -> bool:
    """Return whether any process received a stop signal; if so, add the signal to ``received`` in every process."""
    if fabric.world_size > 1:
        number = torch.tensor(int(received[0]) if received else 0, device=fabric.device)
        highest = int(cast("torch.Tensor", fabric.all_reduce(number, reduce_op="max")))
        if highest and not received:
            received.append(signal.Signals(highest))
    return bool(received)


@contextmanager
def lost_processes(fabric: Fabric) -> Iterator[None]:
    """Raise a UserError if a collective operation fails because another process of the run has ended."""
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not any(word in str(error) for word in LOST):
            raise
        raise UserError(
            f"another of the {fabric.world_size} processes of this run has ended; start all of them again with --resume"
        ) from error


def launch(arguments: Sequence[str], devices: int) -> int:
    """Run ``segformer`` with these arguments as one process per device, and return the exit status.

    If one process fails, the others are ended.  If a process was killed, raises a UserError that names the process.
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
                    f"resume from the last save with --resume"
                ) from None
            return failure.exitcode
    return 0


def _no_logs(folder: str) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

    return DefaultLogsSpecs(log_dir=folder)


@contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """Collect Ctrl-C and SIGTERM in a list instead of ending the process; a second Ctrl-C raises KeyboardInterrupt."""
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
