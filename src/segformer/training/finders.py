"""Search for a suitable learning rate or micro-batch size by training with several values."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

from segformer import report
from segformer.config import Recipe
from segformer.data.dataset import DataSource
from segformer.data.loading import iterate
from segformer.data.sources.catalog import open_data
from segformer.errors import UserError, is_out_of_memory
from segformer.resumable import OnProgress
from segformer.training.cost import random_batch
from segformer.training.optim import set_learning_rate
from segformer.training.preparation import build_random
from segformer.training.processes import build_fabric
from segformer.training.segmentation import SegmentationTask
from segformer.training.step import optimizer_step

RATES = (1e-7, 1e-1)  # lowest and highest
TRIED = 100  # number of learning rates, one for each step
SMOOTHING = 0.9  # decay per step of the moving average of the loss
DIVERGED = 4.0  # the search ends when the loss exceeds its minimum by this factor


@dataclass(frozen=True)
class RateSearch:
    """Outcome of the learning rate range test."""

    best: float
    """Learning rate at which the loss falls fastest."""
    page: Path
    """HTML page with the curve of the loss."""


@dataclass(frozen=True)
class BatchSearch:
    """Speed of training steps with micro-batches of different sizes."""

    rates: dict[int, float]
    """Images per second, by micro-batch size, for each size that fits into memory."""
    too_large: int | None
    """Smallest size that did not fit into memory; None: all fit."""

    @property
    def best(self) -> int:
        """The fastest micro-batch size."""
        return max(self.rates, key=lambda size: self.rates[size])


def find_learning_rate(
    recipe: Recipe, run_dir: Path | None, device: str, progress: OnProgress | None = None
) -> RateSearch:
    """Run the range test and write a page with its curve to lr.html in the run folder."""
    points = try_rates(recipe, open_data(recipe.data), build_fabric(recipe.train.precision, device), progress)
    best = suggest_rate(points)
    path = (run_dir or Path("runs") / recipe.name) / "lr.html"
    curve = [(math.log10(rate), loss) for rate, loss in points]
    chart = report.line_chart({"loss": curve}, x_label="log10 of the learning rate", y_label="smoothed loss")
    report.write_page(
        path, report.page(f"Learning rates of {recipe.name}", f"Suggested learning rate: {best:.1e}", chart)
    )
    return RateSearch(best, path)


def try_rates(
    recipe: Recipe, source: DataSource, fabric: Fabric, progress: OnProgress | None = None
) -> list[tuple[float, float]]:
    """Train with a learning rate that grows at every step until the loss diverges.

    Returns (rate, smoothed loss) of each step.  This is the range test of Smith 2017 (Sec. 3.3), with rates that grow
    geometrically.
    """
    torch.manual_seed(recipe.train.seed)
    task = SegmentationTask(replace(recipe, train=replace(recipe.train, steps=TRIED)), source)
    model = build_random(recipe, source)
    module, optimizer = fabric.setup(task.prepare(model, fabric), task.build_optimizer(model))
    points: list[tuple[float, float]] = []
    average = 0.0
    for step, batch in enumerate(iterate(task.batches(0, rank=0, world_size=1))):
        rate = RATES[0] * (RATES[1] / RATES[0]) ** (step / (TRIED - 1))
        set_learning_rate(optimizer, rate)
        loss = optimizer_step(fabric, module, optimizer, fabric.to_device(batch), task).item()
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(loss) or (points and smoothed > DIVERGED * min(value for _, value in points)):
            break
        points.append((rate, smoothed))
        if progress:
            progress(step + 1, TRIED)
    return points


def suggest_rate(points: list[tuple[float, float]]) -> float:
    """Return the rate at which the loss, as a function of the log of the rate, falls fastest.

    The slope at a point is measured over a tenth of all points.  The first tenth of the points is left out, because the
    moving average of the loss covers few steps there.  Raises a UserError if the loss never falls.

    >>> f"{suggest_rate([(1e-5, 2.0), (1e-4, 1.9), (1e-3, 1.2), (1e-2, 1.1), (1e-1, 3.0)]):.2g}"
    '0.00032'
    """
    tenth = len(points) // 10
    pairs = list(zip(points[tenth:], points[tenth + max(tenth, 1) :], strict=False))
    slopes = [((b[1] - a[1]) / math.log(b[0] / a[0]), math.sqrt(a[0] * b[0])) for a, b in pairs]
    if not slopes or min(slopes)[0] >= 0:
        raise UserError("the loss does not fall at any learning rate; check the data with segformer inspect")
    return min(slopes)[1]


def find_batch(recipe: Recipe, device: str) -> BatchSearch:
    """Time micro-batches of 1, 2, 4 ... images, up to the whole batch or until memory runs out."""
    source = open_data(recipe.data)
    fabric = build_fabric(recipe.train.precision, device)
    batch_size = recipe.train.batch_size
    rates: dict[int, float] = {}
    too_large = None
    for size in [*(2**k for k in range(batch_size.bit_length()) if 2**k < batch_size), batch_size]:
        try:
            rates[size] = measure_rate(
                replace(recipe, train=replace(recipe.train, micro_batch_size=size)), source, fabric
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            too_large = size
            break
    if not rates:
        raise UserError("not even one image fits into memory; lower data.crop, or set train.checkpointing")
    return BatchSearch(rates, too_large)


def measure_rate(recipe: Recipe, source: DataSource, fabric: Fabric) -> float:
    """Return the images per second of training steps on random images; the first of three steps warms up."""
    task = SegmentationTask(replace(recipe, train=replace(recipe.train, balanced=False)), source)
    model = build_random(recipe, source)
    module, optimizer = fabric.setup(task.prepare(model, fabric), task.build_optimizer(model))
    batch = fabric.to_device(random_batch(recipe, len(source.classes)))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        optimizer_step(fabric, module, optimizer, batch, task).item()
        seconds.append(time.perf_counter() - started)
    return recipe.train.batch_size / min(seconds[1:])
