"""The fused ops against their references, and against the time that moving their data takes.

    python -m benchmarks.kernels [--device cpu|cuda] [--shapes 1x150x512x512 ...] [--dtypes fp32 bf16 fp16]
                                 [--rounds 20] [--seed N] [--out FILE.json]

A shape is that of the upsampled logits, B x K x H x W; the logits are a quarter as high and wide.  First both ops are
compared with float64 on noise, which is new in each run (or comes from --seed), at these shapes and at odd ones.  A
class must be that of float64 wherever float64's two best scores differ by more than 1e-5 of their range; differences
of a loss or gradient are relative to the largest value.  Then both ops take turns with their references on smooth
logits, which have as few borders as real ones, and are timed.

The floor is the time that moving the data takes: logits in and mask out, or logits and labels in and gradient out, at
the speed of copying a gigabyte (a quarter of one on the CPU), which takes turns with the ops.  On the CPU the ops are
the torch versions, on a GPU with Triton the kernels.  `cross-entropy` is the loss with its gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.inference import mixed_share
from benchmarks.machine import WARM_UP, Device, describe_run, interleaved, run_command_line
from segformer.config import IGNORE_INDEX
from segformer.errors import UserError
from segformer.files import write_json
from segformer.ops.bilinear import use_triton
from segformer.ops.upsample_argmax import upsample_argmax, upsample_argmax_reference
from segformer.ops.upsample_cross_entropy import upsample_cross_entropy, upsample_cross_entropy_reference

Dtype = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ODD = ((2, 5, 12, 16), (1, 40, 37, 101), (3, 9, 7, 130))  # B x K x H x W; the upsampling factor is fractional
CLEAR = 1e-5  # share of the range of scores by which the best two must differ
LIMITS = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 2e-3}  # relative; a gradient is rounded to the type of the logits
ARGMAX, CROSS_ENTROPY = "arg-max", "cross-entropy"
OURS, REFERENCE, COPY = "ours", "reference", "copy"
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """Logits (B, K, h, w), labels (B, H, W) uint8 with a tenth ignored, and the alignment of the upsampling."""

    logits: Tensor
    labels: Tensor
    align_corners: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.labels.shape[1], self.labels.shape[2]


def main(
    device: Device = "cpu",
    shapes: tuple[str, ...] = ("1x150x512x512", "1x19x1024x2048"),
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16"),
    rounds: int = 20,
    seed: int | None = None,
    out: Path | None = None,
) -> None:
    """Compare the fused ops with float64, measure them, and print tables; exit status 1 if a result is wrong.

    Args:
        device: Device to measure on.
        shapes: Shapes of the upsampled logits, BxKxHxW.
        dtypes: Types of the logits.
        rounds: Number of rounds that are timed.
        seed: Seed of the noise; None: a new one for each run.
        out: JSON file for the results.
    """
    seed = torch.seed() % 2**31 if seed is None else seed
    torch.manual_seed(seed)
    wanted = [parse_shape(shape) for shape in shapes]
    print(f"seed {seed}; {'Triton' if use_triton(torch.empty(1, device=device)) else 'torch'} on {device}")
    checks = [
        check(shape, dtype, corners, device)
        for shape in (*ODD, *wanted)
        for dtype in dtypes
        for corners in (False, True)
    ]
    print_checks(checks)
    rows = [row for shape in wanted for dtype in dtypes for row in measure(shape, dtype, rounds, device)]
    print_rows(rows)
    if out is not None:
        about = describe_run(("segformer", "torch", "triton"), device)
        write_json(
            out, {"machine": about, "device": device, "seed": seed, "checks": checks, "rounds": rounds, "rows": rows}
        )
    if not all(found["equal"] for found in checks):
        raise SystemExit(1)


def parse_shape(text: str) -> Shape:
    """Return the four numbers of BxKxHxW."""
    parts = text.split("x")
    numbers = [int(part) for part in parts if part.isdecimal()]
    if not len(parts) == len(numbers) == 4 or min(numbers) < 1 or numbers[1] > IGNORE_INDEX:
        raise UserError(f"a shape must be BxKxHxW, such as 1x150x512x512, with at most 255 classes, got {text}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def noise(shape: Shape, dtype: Dtype, device: Device, align_corners: bool) -> Case:
    """Return logits whose cells nearly all are mixed: neighbors have different winners."""
    batch, classes, height, width = shape
    logits = torch.randn(batch, classes, -(-height // 4), -(-width // 4), device=device)
    labels = torch.randint(classes, (batch, height, width), dtype=torch.uint8, device=device)
    labels[torch.rand(labels.shape, device=device) < 0.1] = IGNORE_INDEX
    return Case(logits.to(DTYPES[dtype]), labels, align_corners)


def smooth(shape: Shape, dtype: Dtype, device: Device) -> Case:
    """Return logits with large areas of one class, as real masks have them, and their own arg-max as labels."""
    batch, classes, height, width = shape
    small = (-(-height // 4), -(-width // 4))
    coarse = torch.randn(batch, classes, *(max(2, side // 12) for side in small), device=device)
    logits = F.interpolate(coarse, small, mode="bicubic").to(DTYPES[dtype])
    labels = upsample_argmax(logits, (height, width)).to(torch.uint8)
    labels[:, : height // 10] = IGNORE_INDEX
    return Case(logits, labels)


def check(shape: Shape, dtype: Dtype, align_corners: bool, device: Device) -> dict[str, Any]:
    """Compare both ops on noise with their references in float64, image by image."""
    case = noise(shape, dtype, device, align_corners)
    mask = upsample_argmax(case.logits, case.size, align_corners)
    loss, gradient = with_gradient(upsample_cross_entropy, case)
    wrong = clear = 0
    expected_loss, expected = 0.0, []
    for k in range(shape[0]):
        one = Case(case.logits[k : k + 1].double(), case.labels[k : k + 1], align_corners)
        sure, winners = clear_winners(one)
        wrong += int((mask[k : k + 1] != winners)[sure].sum())
        clear += int(sure.sum())
        part, slope = with_gradient(upsample_cross_entropy_reference, one)
        expected_loss += float(part)
        expected.append(slope)
    differences = {
        "loss": abs(float(loss) - expected_loss) / max(abs(expected_loss), 1e-30),
        "gradient": relative_difference(gradient, torch.cat(expected)),
    }
    return {
        "shape": "x".join(map(str, shape)),
        "dtype": dtype,
        "align_corners": align_corners,
        "clear pixels": clear / mask.numel(),
        "wrong pixels": wrong,
        "relative difference": differences,
        "equal": wrong == 0 and differences["loss"] < LIMITS["fp32"] and differences["gradient"] < LIMITS[dtype],
    }


def clear_winners(case: Case) -> tuple[Tensor, Tensor]:
    """Return which pixels have a clear winner in float64, and the winner of every pixel.  -> 2 x (B, H, W)"""
    winners = upsample_argmax_reference(case.logits, case.size, case.align_corners)
    scores = F.interpolate(case.logits, case.size, mode="bilinear", align_corners=case.align_corners)
    best = scores.topk(min(2, scores.shape[1]), dim=1).values
    sure = best[:, 0] - best[:, -1] > CLEAR * (scores.max() - scores.min())
    return sure, winners


def with_gradient(loss_of: Callable[..., Tensor], case: Case) -> tuple[Tensor, Tensor]:
    """Return the summed loss and its gradient."""
    logits = case.logits.detach().requires_grad_()
    loss = loss_of(logits, case.labels, IGNORE_INDEX, average="sum", align_corners=case.align_corners)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected value."""
    return float((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def measure(shape: Shape, dtype: Dtype, rounds: int, device: Device) -> list[dict[str, Any]]:
    """Return the times of both ops and of their references, which take turns with each other and with a copy."""
    case = smooth(shape, dtype, device)
    source = torch.ones(2**28 if device == "cuda" else 2**26, device=device)  # fp32: one gigabyte, or a quarter
    target = torch.empty_like(source)
    runs: dict[tuple[str, str], Callable[[], Any]] = {
        (ARGMAX, OURS): partial(upsample_argmax, case.logits, case.size),
        (ARGMAX, REFERENCE): partial(upsample_argmax_reference, case.logits, case.size),
        (CROSS_ENTROPY, OURS): partial(with_gradient, upsample_cross_entropy, case),
        (CROSS_ENTROPY, REFERENCE): partial(with_gradient, upsample_cross_entropy_reference, case),
        (COPY, COPY): partial(target.copy_, source),
    }
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    seconds = interleaved(runs, rounds, device)
    bandwidth = 2 * source.nbytes / min(seconds.pop((COPY, COPY)))
    found = {key: median(values) for key, values in seconds.items()}
    about = {
        "shape": "x".join(map(str, shape)),
        "dtype": dtype,
        "mixed": mixed_share(case.logits),
        "GB/s": bandwidth / 1e9,
    }
    return [
        {"op": op, **about, **figures(found[op, OURS], found[op, REFERENCE], moved, bandwidth)}
        for op, moved in bytes_moved(case).items()
    ]


def bytes_moved(case: Case) -> dict[str, int]:
    """Return the least that each op must move: its inputs read once, its results written once."""
    mask = case.labels.numel() * torch.int64.itemsize
    return {ARGMAX: case.logits.nbytes + mask, CROSS_ENTROPY: 2 * case.logits.nbytes + case.labels.nbytes}


def figures(ours: float, reference: float, moved: int, bandwidth: float) -> dict[str, float]:
    floor = moved / bandwidth
    return {
        "ours, ms": 1000 * ours,
        "reference, ms": 1000 * reference,
        "floor, ms": 1000 * floor,
        "times as fast": reference / ours,
        "share of the bandwidth floor": floor / ours,
    }


def print_checks(checks: list[dict[str, Any]]) -> None:
    table = Table(title="against float64, on noise", title_justify="left")
    for heading in ("B x K x H x W", "type", "align_corners", "clear pixels", "wrong", "loss", "gradient", "equal"):
        table.add_column(heading, justify="right")
    for row in checks:
        loss, gradient = row["relative difference"].values()
        pixels = (f"{row['clear pixels']:.3%}", str(row["wrong pixels"]))
        settings = (row["shape"], row["dtype"], str(row["align_corners"]))
        table.add_row(*settings, *pixels, f"{loss:.1e}", f"{gradient:.1e}", "yes" if row["equal"] else "NO")
    Console(width=150).print(table)


def print_rows(rows: list[dict[str, Any]]) -> None:
    table = Table(title="time", title_justify="left")
    headings = ("ours, ms", "reference, ms", "floor, ms", "times as fast", "share of the bandwidth floor")
    for heading in ("op", "B x K x H x W", "type", "mixed", *headings):
        table.add_column(heading, justify="right")
    for row in rows:
        times = [f"{row[heading]:.3g}" for heading in headings[:-1]]
        table.add_row(row["op"], row["shape"], row["dtype"], f"{row['mixed']:.0%}", *times, f"{row[headings[-1]]:.1%}")
    Console(width=150).print(table)
    print(f"copied at {', '.join(f'{rate:.0f}' for rate in sorted({row['GB/s'] for row in rows}))} GB/s")


if __name__ == "__main__":
    run_command_line(main)
