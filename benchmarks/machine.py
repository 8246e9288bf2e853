"""The machine a benchmark runs on, its clock and its memory."""

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

from segformer.config import check_choice
from segformer.published import MIT_SIZES

Device = Literal["cpu", "cuda"]
Key = TypeVar("Key", bound=Hashable)
WARM_UP = 3  # calls: the first compiles, the second records a CUDA graph


def describe_machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    cpu = names[0].partition(":")[2].strip() if names else "unknown"
    return {"cpu": cpu, "cores": os.cpu_count(), "python": sys.version.split()[0]}


def describe_run(packages: Sequence[str], device: Device = "cpu") -> dict[str, Any]:
    """The machine, the day, and the versions of those packages that there are."""
    return {
        **describe_machine(),
        **(describe_gpu() if device == "cuda" else {}),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in packages if find_spec(name.replace("-", "_"))},
        "system": platform.system(),
    }


def describe_gpu() -> dict[str, Any]:
    """The card, and whether products and convolutions in fp32 are really in TF32; torch's defaults are left alone."""
    tf32 = {"products": torch.get_float32_matmul_precision() != "highest", "cudnn": torch.backends.cudnn.allow_tf32}
    return {"gpu": torch.cuda.get_device_name(), "TF32": tf32}


def wait(device: Device) -> None:
    """Until everything is done that was put into the device's queue."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed(run: Callable[[], Any], device: Device = "cpu") -> float:
    """Seconds of the wall."""
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def interleaved(runs: dict[Key, Callable[[], Any]], rounds: int, device: Device = "cpu") -> dict[Key, list[float]]:
    """Seconds of each: all take turns within every round, there and back again."""
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for turn in range(rounds):
        for key in list(runs)[:: 1 if turn % 2 else -1]:
            seconds[key].append(timed(runs[key], device))
    return seconds


def by_way(seconds: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, float]]:
    """Medians, the stages of each way together."""
    table: dict[str, dict[str, float]] = {}
    for (way, stage), values in seconds.items():
        table.setdefault(way, {})[stage] = median(values)
    return table


def in_ms(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {way: {stage: 1000 * value for stage, value in stages.items()} for way, stages in table.items()}


def sides(size: str) -> tuple[int, int]:
    """Height and width of HxW."""
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal()) or min(int(height), int(width)) < 32:
        raise ValueError(f"a size must be HxW of at least 32 x 32, such as 512x512, got {size}")
    return int(height), int(width)


def check_models(models: Sequence[str]) -> None:
    known = [name.removeprefix("mit_") for name in MIT_SIZES]
    for model in models:
        check_choice("a model", model, known)


def command_line(main: Callable[..., None]) -> None:
    """Run a benchmark by its command line; what a user can mend is one line and exit status 2."""
    import tyro

    try:
        tyro.cli(main)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def memory_of(run: Callable[[], Any], device: Device) -> float:
    """MiB that two calls take above what the process held before; for a process that does nothing else.

    On a GPU that is what torch reserves, not what it allocates: a CUDA graph keeps its memory between two calls.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved()
        for _ in range(WARM_UP):  # what compiling tries out is no part of it
            run()
        wait(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        twice(run)
        return (torch.cuda.max_memory_reserved() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    twice(run)
    return (resident("VmHWM") - before) / 2**10


def twice(run: Callable[[], Any]) -> None:
    for _ in range(2):
        run()  # what it returns is given up before the next


def resident(field: str) -> float:
    """KiB of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return float(line.split()[1])
