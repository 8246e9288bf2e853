"""One training step of this package against one of transformers, with the same weights and the same batch.

    python -m benchmarks.training [--models b0 b2] [--size 512] [--batch 2] [--rounds 12] [--device cpu|cuda]
                                  [--precision fp32|bf16] [--out FILE.json]

A step is forward, cross-entropy at the labels' size, backward and AdamW, with the stochastic depth and dropout that
each library uses in training.  The two take turns within every round; times are medians of wall-clock times, and the
ratio is that of the medians.

Memory is what a step takes above the loaded model.  On the CPU it is the highest resident size of a separate process
that takes two steps, minus the size before the first; on a GPU it is the highest allocation, minus that before.  It
includes AdamW's moments, which are the same size for both.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table
from torch import Tensor

import segformer
from benchmarks.machine import (
    Device,
    call_twice,
    check_models,
    describe_machine,
    interleaved,
    reset_resident_peak,
    resident_kib,
    run_command_line,
)
from segformer.config import IGNORE_INDEX, Recipe
from segformer.data.dataset import DataSource
from segformer.data.label_table import LabelTable
from segformer.files import write_json
from segformer.recipes import RECIPES
from segformer.training.processes import PRECISIONS
from segformer.training.segmentation import SegmentationTask
from segformer.training.step import optimizer_step

Step = Callable[[], float]
OURS, THEIRS = "ours", "transformers"
CLASSES = 150
SEED = 0


def build_recipe(model: str, size: int, batch: int, precision: Any) -> Recipe:
    """Return ADE20K's recipe with another crop, batch and precision."""
    recipe = RECIPES[f"ade20k_{model}"]
    data = replace(recipe.data, crop=(size, size))
    train = replace(recipe.train, batch_size=batch, precision=precision, loss_average="valid")
    return replace(recipe, data=data, train=train)


def make_batch(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return noise, and labels in blocks of 16 x 16, since real masks have areas; a tenth of the rows is ignored."""
    torch.manual_seed(SEED)
    batch = recipe.train.batch_size
    height, width = recipe.data.crop
    images = torch.randn(batch, 3, height, width)
    blocks = torch.randint(CLASSES, (batch, height // 16, width // 16), dtype=torch.uint8)
    masks = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    masks[:, : height // 10] = IGNORE_INDEX
    return images, masks


def our_step(folder: Path, recipe: Recipe, device: Device) -> Step:
    """Return a function that takes one step of our training loop and returns its loss."""
    fabric = Fabric(accelerator=device, devices=1, precision=PRECISIONS[recipe.train.precision])
    model = segformer.load(folder / OURS)
    card = model.card
    task = SegmentationTask(recipe, DataSource("noise", card.classes, card.palette, LabelTable.identity(CLASSES), {}))
    module, optimizer = fabric.setup(task.prepare(model, fabric), task.build_optimizer(model))
    images, masks = make_batch(recipe)
    batch = fabric.to_device((images.contiguous(memory_format=torch.channels_last), masks))
    return lambda: optimizer_step(fabric, module, optimizer, batch, task).item()


def their_step(folder: Path, recipe: Recipe, device: Device) -> Step:
    """Return a function that takes the step that transformers' documentation shows and returns its loss."""
    from transformers import SegformerForSemanticSegmentation

    model: Any = SegformerForSemanticSegmentation.from_pretrained(folder / THEIRS).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.train.lr, fused=True)
    images, masks = make_batch(recipe)
    pixels, labels = images.to(device), masks.long().to(device)
    reduced = recipe.train.precision == "bf16"

    def step() -> float:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=reduced):
            loss = model(pixel_values=pixels, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


STEPS = {OURS: our_step, THEIRS: their_step}


def write_models(folder: Path, recipe: Recipe) -> None:
    """Write one random model in the layouts of both libraries."""
    torch.manual_seed(SEED)
    model = segformer.build_model(recipe.model, num_classes=CLASSES)
    segformer.save(model, folder / OURS)
    segformer.convert(folder / OURS, folder / THEIRS, "hf")
    path = folder / THEIRS / "config.json"
    config = json.loads(path.read_text()) | {"semantic_loss_ignore_index": IGNORE_INDEX}
    path.write_text(json.dumps(config))


def time_steps(folder: Path, recipe: Recipe, device: Device, rounds: int) -> dict[str, Any]:
    """Return the seconds of a step of each, and their first losses, which differ only by dropout and depth."""
    steps = {name: build(folder, recipe, device) for name, build in STEPS.items()}
    losses = {name: step() for name, step in steps.items()}
    seconds = {name: median(values) for name, values in interleaved(steps, rounds, device).items()}
    return {"seconds": seconds, "first loss": losses}


def step_memory(name: str, folder: Path, recipe: Recipe, device: Device) -> float:
    """Return the MiB that two steps take above the loaded model; the process should do nothing else."""
    step = STEPS[name](folder, recipe, device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call_twice(step)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    reset_resident_peak()
    before = resident_kib("VmRSS")
    call_twice(step)
    return (resident_kib("VmHWM") - before) / 2**10


def measure(model: str, size: int, batch: int, precision: str, device: Device, rounds: int) -> dict[str, Any]:
    """Return the figures of one model."""
    recipe = build_recipe(model, size, batch, precision)
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
    """Measure a training step, and print a table.

    Args:
        models: MiT sizes.
        size: Side of the square crops, in pixels.
        batch: Number of images in a batch.
        rounds: Number of rounds that are timed.
        device: Device to train on.
        precision: fp32 or bf16 (mixed precision).
        out: JSON file for the results.
    """
    check_models(models)
    rows = [measure(model, size, batch, precision, device, rounds) for model in models]
    print_rows(rows, f"training step, {size} x {size}, batch {batch}, {precision}, {device}")
    if out is not None:
        write_json(out, {"machine": describe_machine(), "rounds": rounds, "rows": rows})


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("model", "ours, s", "transformers, s", "times as fast", "ours, MiB", "theirs, MiB", "share"):
        table.add_column(heading, justify="right")
    for row in rows:
        seconds, memory = row["seconds"], row["memory above the model, MiB"]
        times = (f"{seconds[OURS]:.3f}", f"{seconds[THEIRS]:.3f}", f"{row['times as fast']:.2f}")
        sizes = (f"{memory[OURS]:.0f}", f"{memory[THEIRS]:.0f}", f"{row['share of their memory']:.0%}")
        table.add_row(row["model"], *times, *sizes)
    Console(width=150).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        which, folder, name, size, batch, precision, device = sys.argv[2:]
        recipe = build_recipe(name, int(size), int(batch), precision)
        print(step_memory(which, Path(folder), recipe, device))  # type: ignore[arg-type]
    else:
        run_command_line(main)
