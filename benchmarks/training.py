"""A training step of ours against one of transformers', from the same weights, on the same batch.

    python -m benchmarks.training [--models b0 b2] [--size 512] [--batch 2] [--rounds 12] [--device cpu|cuda]
                                  [--precision fp32|bf16] [--out FILE.json]

A step is forward, cross-entropy at the labels' size, backward and AdamW, with stochastic depth and dropout as each
trains with them.  The two take turns within every round; times are of the wall, and their ratio is that of the medians.

Memory is what a step takes above the loaded model: on the CPU the highest resident size of a process of its own that
takes two steps, less that before the first; on a GPU the highest allocation, less that before.  AdamW's moments, equal
for both, are part of it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import tyro
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table
from torch import Tensor

import segformer
from benchmarks.machine import Device, describe_machine, resident
from segformer.config import IGNORE_INDEX, Recipe
from segformer.files import write_json
from segformer.recipes import RECIPES
from segformer.training.optim import build_optimizer
from segformer.training.processes import PRECISIONS
from segformer.training.step import optimizer_step

Step = Callable[[], float]
OURS, THEIRS = "ours", "transformers"
CLASSES = 150
SEED = 0


def recipe_of(model: str, size: int, batch: int, precision: Any) -> Recipe:
    """ADE20K's recipe at a size and a batch."""
    recipe = RECIPES[f"ade20k_{model}"]
    data = replace(recipe.data, crop=(size, size))
    train = replace(recipe.train, batch_size=batch, precision=precision, loss_average="valid")
    return replace(recipe, data=data, train=train)


def make_batch(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Noise, and labels in blocks of 16 x 16 as real masks have areas; a tenth of the rows is ignored."""
    torch.manual_seed(SEED)
    batch, (height, width) = recipe.train.batch_size, recipe.data.crop
    images = torch.randn(batch, 3, height, width)
    blocks = torch.randint(CLASSES, (batch, height // 16, width // 16), dtype=torch.uint8)
    masks = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    masks[:, : height // 10] = IGNORE_INDEX
    return images, masks


def our_step(folder: Path, recipe: Recipe, device: Device) -> Step:
    """Return what takes a step of our training loop."""
    fabric = Fabric(accelerator=device, devices=1, precision=PRECISIONS[recipe.train.precision])
    model = segformer.load(folder / OURS).train()
    wrapped, optimizer = fabric.setup(model, build_optimizer(model, recipe.train))
    images, masks = make_batch(recipe)
    batch = fabric.to_device((images.contiguous(memory_format=torch.channels_last), masks))
    return lambda: optimizer_step(fabric, wrapped, optimizer, batch, recipe, None).item()


def their_step(folder: Path, recipe: Recipe, device: Device) -> Step:
    """Return what takes the step that transformers' documentation shows."""
    from transformers import SegformerForSemanticSegmentation

    model: Any = SegformerForSemanticSegmentation.from_pretrained(folder / THEIRS).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.train.lr, fused=True)
    images, masks = make_batch(recipe)
    pixels, labels = images.to(device), masks.long().to(device)
    dtype, reduced = torch.bfloat16, recipe.train.precision == "bf16"

    def step() -> float:
        with torch.autocast(device, dtype=dtype, enabled=reduced):
            loss = model(pixel_values=pixels, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


STEPS = {OURS: our_step, THEIRS: their_step}


def write_models(folder: Path, recipe: Recipe) -> None:
    """Write one random model in both layouts."""
    torch.manual_seed(SEED)
    model = segformer.build_model(recipe.model, num_classes=CLASSES)
    segformer.save(model, folder / OURS)
    segformer.convert(folder / OURS, folder / THEIRS, "hf")
    path = folder / THEIRS / "config.json"
    config = json.loads(path.read_text()) | {"semantic_loss_ignore_index": IGNORE_INDEX}
    path.write_text(json.dumps(config))


def time_steps(folder: Path, recipe: Recipe, device: Device, rounds: int) -> dict[str, Any]:
    """Seconds of a step of both, and their first losses, which are equal but for dropout and depth."""
    steps = {name: build(folder, recipe, device) for name, build in STEPS.items()}
    losses = {name: step() for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - started)
    return {"seconds": {name: median(values) for name, values in seconds.items()}, "first loss": losses}


def memory_of(name: str, folder: Path, recipe: Recipe, device: Device) -> float:
    """MiB that two steps take above the loaded model; to be run in a process of its own."""
    step = STEPS[name](folder, recipe, device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(), step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    step(), step()
    return (resident("VmHWM") - before) / 2**10


def measure(model: str, size: int, batch: int, precision: str, device: Device, rounds: int) -> dict[str, Any]:
    """Figures of one model."""
    recipe = recipe_of(model, size, batch, precision)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, recipe)
        found = time_steps(folder, recipe, device, rounds)
        memory = {}
        for which in STEPS:
            arguments = [which, name, model, str(size), str(batch), precision, device]
            child = [sys.executable, "-m", "benchmarks.training", "--memory", *arguments]
            memory[which] = float(subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()[-1])
    seconds = found["seconds"]
    return {
        "model": model,
        "size": size,
        "batch": batch,
        "precision": precision,
        **found,
        "memory above the model, MiB": memory,
        "times as fast": seconds[THEIRS] / seconds[OURS],
        "share of their memory": memory[OURS] / memory[THEIRS],
    }


def main(
    models: tuple[str, ...] = ("b0", "b2"),
    size: int = 512,
    batch: int = 2,
    rounds: int = 12,
    device: Device = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    out: Path | None = None,
) -> None:
    """Measure, print a table, and write it as JSON where ``out`` says."""
    table = Table(title=f"training step, {size} x {size}, batch {batch}, {precision}, {device}", title_justify="left")
    for heading in ("model", "ours, s", "transformers, s", "times as fast", "ours, MiB", "theirs, MiB", "share"):
        table.add_column(heading, justify="right")
    rows = [measure(model, size, batch, precision, device, rounds) for model in models]
    for row in rows:
        seconds, memory = row["seconds"], row["memory above the model, MiB"]
        times = (f"{seconds[OURS]:.3f}", f"{seconds[THEIRS]:.3f}", f"{row['times as fast']:.2f}")
        sizes = (f"{memory[OURS]:.0f}", f"{memory[THEIRS]:.0f}", f"{row['share of their memory']:.0%}")
        table.add_row(row["model"], *times, *sizes)
    Console().print(table)
    if out is not None:
        write_json(out, {"machine": describe_machine(), "rounds": rounds, "rows": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        which, place, name, size, batch, precision, device = sys.argv[2:]
        recipe = recipe_of(name, int(size), int(batch), precision)
        print(memory_of(which, Path(place), recipe, device))  # type: ignore[arg-type]
    else:
        tyro.cli(main)
