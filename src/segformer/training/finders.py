"""Look for a learning rate, or for the size of a micro-batch, by trying."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import track
from rich.table import Table

from segformer import report
from segformer.config import Recipe
from segformer.data.dataset import DataSource
from segformer.data.loading import iterate
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.training.loader import StepBatches, build_loader
from segformer.training.optim import build_optimizer, set_learning_rate
from segformer.training.preparation import build_random, prepare_model, training_set, with_class_weights
from segformer.training.processes import build_fabric
from segformer.training.step import optimizer_step

RATES = (1e-7, 1e-1)
TRIED = 100  # steps, one a learning rate
SMOOTHING = 0.9  # of the loss from step to step
DIVERGED = 4.0  # times the lowest loss


def find(what: Literal["lr", "batch"], recipe: Recipe, folder: Path | None, device: str) -> None:
    """Print what was found and the option that sets it; the curve of the learning rates goes to lr.html."""
    console, source = Console(), open_data(recipe.data)
    recipe = with_class_weights(recipe, source)
    fabric = build_fabric(recipe.train.precision, device)
    if what == "batch":
        find_batch(recipe, source, fabric, console)
        return
    points = try_rates(recipe, source, fabric)
    best = suggest_rate(points)
    path = (folder or Path("runs") / recipe.name) / "lr.html"
    curve = [(math.log10(rate), loss) for rate, loss in points]
    chart = report.line_chart({"loss": curve}, x_label="log10 of the learning rate", y_label="loss, smoothed")
    report.write_page(path, report.page(f"Learning rates of {recipe.name}", f"suggested: {best:.1e}", chart))
    console.print(f"curve: {path}", soft_wrap=True)
    console.print(f"steepest descent at {best:.1e}: --train.lr {best:.1e}")


def try_rates(recipe: Recipe, source: DataSource, fabric: Fabric) -> list[tuple[float, float]]:
    """Take a step at each of growing learning rates; returns (rate, smoothed loss) up to where the loss diverges.

    The range test of Smith 2017 (Sec. 3.3), with rates that grow geometrically.
    """
    torch.manual_seed(recipe.train.seed)
    recipe = replace(recipe, train=replace(recipe.train, steps=TRIED))
    weights = recipe.train.class_weights
    factors = None if weights is None else torch.tensor(weights, device=fabric.device)
    model = prepare_model(build_random(recipe, source), recipe, fabric)
    wrapped, optimizer = fabric.setup(model, build_optimizer(model, recipe.train))
    dataset = training_set(recipe, source)
    batches = iterate(build_loader(dataset, StepBatches(len(dataset), recipe.train)))
    points: list[tuple[float, float]] = []
    average = 0.0
    for step, batch in enumerate(track(batches, "learning rates", total=TRIED, transient=True)):
        rate = RATES[0] * (RATES[1] / RATES[0]) ** (step / (TRIED - 1))
        set_learning_rate(optimizer, rate)
        loss = optimizer_step(fabric, wrapped, optimizer, fabric.to_device(batch), recipe, factors).item()
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(loss) or (points and smoothed > DIVERGED * min(value for _, value in points)):
            break
        points.append((rate, smoothed))
    return points


def suggest_rate(points: list[tuple[float, float]]) -> float:
    """Where the loss falls fastest over the logarithm of the rate; raises a UserError where it never falls.

    Slopes are taken over a tenth of the points, and not of the first tenth, where the average is still of few steps.

    >>> f"{suggest_rate([(1e-5, 2.0), (1e-4, 1.9), (1e-3, 1.2), (1e-2, 1.1), (1e-1, 3.0)]):.2g}"
    '0.00032'
    """
    tenth = len(points) // 10
    pairs = list(zip(points[tenth:], points[tenth + max(tenth, 1) :], strict=False))
    slopes = [((b[1] - a[1]) / math.log(b[0] / a[0]), math.sqrt(a[0] * b[0])) for a, b in pairs]
    if not slopes or min(slopes)[0] >= 0:
        raise UserError("the loss falls at no learning rate; look at the data first: segformer inspect")
    return min(slopes)[1]


def find_batch(recipe: Recipe, source: DataSource, fabric: Fabric, console: Console) -> int:
    """Try micro-batches of 1, 2, 4 ... images, up to the whole batch or what fits, and return the fastest size."""
    sizes = [2**k for k in range(recipe.train.batch_size.bit_length()) if 2**k < recipe.train.batch_size]
    table, rates = (
        Table("micro-batch", "images/s", title="same step, same result", title_justify="left"),
        dict[int, float](),
    )
    for size in [*sizes, recipe.train.batch_size]:
        try:
            rates[size] = rate_of(replace(recipe, train=replace(recipe.train, micro_batch_size=size)), source, fabric)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            table.add_row(str(size), "out of memory")
            break
        table.add_row(str(size), f"{rates[size]:.1f}")
    if not rates:
        raise UserError("not even one image fits into memory; lower data.crop, or set train.checkpointing")
    best = max(rates, key=lambda size: rates[size])
    console.print(table)
    console.print(f"fastest: --train.micro-batch-size {best} (a step stays {recipe.train.batch_size} images)")
    return best


def rate_of(recipe: Recipe, source: DataSource, fabric: Fabric) -> float:
    """Images a second of training steps on noise; the first of three warms up."""
    from segformer.training.cost import random_batch

    model = prepare_model(build_random(recipe, source), recipe, fabric)
    wrapped, optimizer = fabric.setup(model, build_optimizer(model, recipe.train))
    batch = fabric.to_device(random_batch(recipe, len(source.classes)))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        optimizer_step(fabric, wrapped, optimizer, batch, recipe, None).item()
        seconds.append(time.perf_counter() - started)
    return recipe.train.batch_size / min(seconds[1:])
