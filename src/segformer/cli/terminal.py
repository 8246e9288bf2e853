"""What the terminal shows: progress, recipes, scores, models."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segformer.resumable import OnProgress

if TYPE_CHECKING:
    from segformer.config import Recipe


def progress_bar() -> Progress:
    """Return a progress bar on standard error, so that standard output stays clean."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


@contextmanager
def progress_of(description: str) -> Iterator[OnProgress]:
    """Show a progress bar while the block runs, and yield the callback that moves it."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def costs(recipe: "Recipe", device: str) -> tuple[str, str]:
    """Measure what a step of a recipe takes, and whether the loader keeps up; in words."""
    from segformer.data.sources.catalog import open_data
    from segformer.training.cost import step_cost

    cost = step_cost(recipe, open_data(recipe.data), device)
    needed, crop = recipe.train.batch_size / cost.seconds, recipe.data.crop
    return (
        f"a step of {recipe.name} ({recipe.train.batch_size} crops of {crop[0]} x {crop[1]}) on {cost.device}: "
        f"{cost.seconds:.2f} s, {cost.bytes / 2**30:.1f} GiB; all {recipe.train.steps} steps: "
        f"{recipe.train.steps * cost.seconds / 60:.0f} min and the evaluations",
        f"one loading process gives {cost.loader_rate:.0f} images/s, the steps take {needed:.1f}: "
        f"--train.workers {max(1, math.ceil(1.25 * needed / cost.loader_rate))} is enough",
    )
