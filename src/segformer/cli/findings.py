"""Terminal output of the searches for a learning rate or a micro-batch size, and of training with several seeds."""

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from segformer.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segformer.resumable import OnProgress
    from segformer.training.finders import BatchSearch, RateSearch
    from segformer.training.seeds import SeedsResult


@contextmanager
def searching(description: str) -> "Iterator[OnProgress]":
    """Show a progress bar during the block and remove it afterwards; yields the callback that moves the bar."""
    with Progress(console=Console(), transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_rates(found: "RateSearch") -> None:
    """Print the path of the loss curve, the suggested learning rate and the option that sets it."""
    print(f"curve: {found.page}")
    print(f"steepest descent at {found.best:.1e}: --train.lr {found.best:.1e}")


def print_batches(found: "BatchSearch", batch_size: int) -> None:
    """Print the speed of each micro-batch size and the option that sets the fastest size."""
    rows = [(str(size), f"{rate:.1f}") for size, rate in found.rates.items()]
    if found.too_large is not None:
        rows.append((str(found.too_large), "out of memory"))
    print_table(("micro-batch", "images/s"), rows)
    print(f"fastest: --train.micro-batch-size {found.best} (a step still takes {batch_size} images)")


def print_seeds(found: "SeedsResult") -> None:
    """Print the mIoU of each seed, and the mean and standard deviation over the seeds."""
    print("  ".join(f"seed {seed}: {miou:.4f}" for seed, miou in found.miou.items()))
    print(f"mIoU {found.mean:.4f} +- {found.deviation:.4f} ({len(found.miou)} seeds, standard deviation)")
