"""What all benchmarks share: facts about the machine, the clock, memory, and the command line."""

import inspect
import os
import platform
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

import torch
import tyro

from segformer.errors import UserError
from segformer.published import MIT_SIZES
from segformer.validation import check_choice

Device = Literal["cpu", "cuda"]
Key = TypeVar("Key", bound=Hashable)
WARM_UP = 3  # calls: the first one compiles, the second one records a CUDA graph


def describe_machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    cpu = names[0].partition(":")[2].strip() if names else "unknown"
    return {"cpu": cpu, "cores": os.cpu_count(), "python": sys.version.split()[0]}


def describe_run(packages: Sequence[str], device: Device = "cpu") -> dict[str, Any]:
    """Return the machine, the date, and the versions of those of the packages that are installed."""
    return {
        **describe_machine(),
        **(describe_gpu() if device == "cuda" else {}),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in packages if find_spec(name.replace("-", "_"))},
        "system": platform.system(),
    }


def describe_gpu() -> dict[str, Any]:
    """Return the card, and whether fp32 products and convolutions run in TF32; torch's defaults are not changed."""
    tf32 = {"products": torch.get_float32_matmul_precision() != "highest", "cudnn": torch.backends.cudnn.allow_tf32}
    return {"gpu": torch.cuda.get_device_name(), "TF32": tf32}


def synchronize(device: Device) -> None:
    """Wait until the device has finished everything in its queue."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], Any], device: Device = "cpu") -> float:
    """Return the wall-clock seconds of one call."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def interleaved(runs: dict[Key, Callable[[], Any]], rounds: int, device: Device = "cpu") -> dict[Key, list[float]]:
    """Return the seconds of every call: each round calls all functions in turn, every second round in reverse."""
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for turn in range(rounds):
        for key in list(runs)[:: 1 if turn % 2 else -1]:
            seconds[key].append(timed(runs[key], device))
    return seconds


def stage_medians(seconds: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, float]]:
    """Group the times of (name, stage) by name, and take the median of each."""
    table: dict[str, dict[str, float]] = {}
    for (name, stage), values in seconds.items():
        table.setdefault(name, {})[stage] = median(values)
    return table


def in_milliseconds(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {stage: 1000 * value for stage, value in stages.items()} for name, stages in table.items()}


def parse_size(text: str) -> tuple[int, int]:
    """Return the height and width that a text such as 512x1024 gives."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()) or min(int(height), int(width)) < 32:
        raise UserError(f"a size must be HxW of at least 32 x 32, such as 512x512, got {text}")
    return int(height), int(width)


def check_models(models: Sequence[str]) -> None:
    known = [name.removeprefix("mit_") for name in MIT_SIZES]
    for model in models:
        check_choice("a model", model, known)


def run_command_line(main: Callable[..., None]) -> None:
    """Run a benchmark with the arguments of the command line; a UserError is printed on one line, exit status 2."""
    try:
        tyro.cli(main, prog=f"python -m benchmarks.{Path(inspect.getfile(main)).stem}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def peak_memory(run: Callable[[], Any], device: Device) -> float:
    """Return the MiB that two calls take above what the process held before them.

    The process should do nothing else.  On a GPU this is the memory that torch reserves, not what it allocates: a
    CUDA graph keeps its memory between two calls.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved()
        for _ in range(WARM_UP):  # memory that the compiler takes for its trials does not count
            run()
        synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        call_twice(run)
        return (torch.cuda.max_memory_reserved() - held) / 2**20
    reset_resident_peak()
    before = resident_kib("VmRSS")
    call_twice(run)
    return (resident_kib("VmHWM") - before) / 2**10


def call_twice(run: Callable[[], Any]) -> None:
    for _ in range(2):
        run()  # its result is freed before the next call


def reset_resident_peak() -> None:
    """Let Linux measure the highest resident size (VmHWM) of this process from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_kib(field: str) -> float:
    """Return a field of /proc/self/status such as VmRSS, in KiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return float(line.split()[1])
