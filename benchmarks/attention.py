"""The attention back-ends of torch at each stage of an encoder: is the one that torch picks the fastest?

    python -m benchmarks.attention [--models b0 b2] [--sizes 512x512 ...] [--device cpu|cuda] [--dtypes fp32 bf16]
                                   [--batch 1] [--rounds 20] [--out FILE.json]

All back-ends take turns; times are medians.  GMAC/s count the two products only, not the exponentials between them.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.kernels import DTYPES, Dtype
from benchmarks.machine import WARM_UP, Device, check_models, describe_run, interleaved, parse_size, run_command_line
from segformer.files import write_json
from segformer.models.encoders.mit import NUM_HEADS, REDUCTIONS
from segformer.published import MIT_SIZES

PICKED = "torch's pick"
BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def main(
    models: tuple[str, ...] = ("b0", "b2"),
    sizes: tuple[str, ...] = ("512x512",),
    device: Device = "cpu",
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16"),
    batch: int = 1,
    rounds: int = 20,
    out: Path | None = None,
) -> None:
    """Measure the attention back-ends, and print a table.

    Args:
        models: MiT sizes.
        sizes: Image sizes, HxW.
        device: Device to measure on.
        dtypes: Types of queries, keys and values.
        batch: Number of images in a batch.
        rounds: Number of rounds that are timed.
        out: JSON file for the results.
    """
    check_models(models)
    rows = [
        measure(model, size, stage, dtype, batch, rounds, device)
        for model in models
        for size in sizes
        for dtype in dtypes
        for stage in range(4)
    ]
    print_rows(rows, f"attention on {device}, batch {batch}: ms")
    if out is not None:
        write_json(out, {"machine": describe_run(("segformer", "torch"), device), "device": device, "rows": rows})


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title, title_justify="left")
    names = [PICKED, *BACKENDS]
    for heading in ("model", "size", "dtype", "stage", "heads x queries x keys x dim", *names, "GMAC/s"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = [f"{1000 * row['seconds'][name]:.2f}" if name in row["seconds"] else "-" for name in names]
        about = (row["model"], row["size"], row["dtype"], str(row["stage"]), row["shape"])
        table.add_row(*about, *times, f"{row['GMAC/s']:.0f}")
    Console(width=150).print(table)


@torch.inference_mode()
def measure(model: str, size: str, stage: int, dtype: Dtype, batch: int, rounds: int, device: Device) -> dict[str, Any]:
    """Return the seconds of each back-end that supports such tensors, in the memory order of the encoder's layers."""
    height, width = (-(-side // (4 << stage)) for side in parse_size(size))
    heads, reduction, channels = NUM_HEADS[stage], REDUCTIONS[stage], MIT_SIZES[f"mit_{model}"].channels[stage]
    keys = (height // reduction) * (width // reduction)
    dim = channels // heads

    def tensor(tokens: int) -> Tensor:
        return torch.randn(batch, tokens, heads, dim, device=device, dtype=DTYPES[dtype]).transpose(1, 2)

    attend = partial(F.scaled_dot_product_attention, tensor(height * width), tensor(keys), tensor(keys))
    runs: dict[str, Callable[[], Tensor]] = {PICKED: attend}
    runs |= {name: partial(attend_with, backend, attend) for name, backend in BACKENDS.items()}
    runs = {name: run for name, run in runs.items() if is_supported(run)}
    seconds = {name: median(values) for name, values in interleaved(runs, rounds, device).items()}
    macs = 2 * batch * heads * height * width * keys * dim
    return {
        "model": model, "size": size, "dtype": dtype, "stage": stage + 1, "batch": batch, "rounds": rounds,
        "shape": f"{heads} x {height * width} x {keys} x {dim}",
        "seconds": seconds, "GMAC/s": macs / seconds[PICKED] / 1e9,
    }  # fmt: skip


def attend_with(backend: SDPBackend, attend: Callable[[], Tensor]) -> Tensor:
    with sdpa_kernel(backend):
        return attend()


def is_supported(run: Callable[[], Tensor]) -> bool:
    """Whether a back-end can run; warms it up if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(WARM_UP):
                run()
    except RuntimeError as error:
        if "No available kernel" in str(error) or "No viable backend" in str(error):
            return False
        raise
    return True


if __name__ == "__main__":
    run_command_line(main)
