"""The same recipe with several seeds: mean and standard deviation."""

import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from segformer.config import Recipe
from segformer.files import write_json
from segformer.training.run import train


def train_seeds(recipe: Recipe, count: int, run_dir: Path | None, *, resume: bool, **options: Any) -> dict[str, Any]:
    """Train with the seeds train.seed, train.seed + 1, ... into folders seed_K, and write seeds.json beside them.

    With ``resume`` finished runs are left as they are and the first unfinished one goes on.  A signal ends it all.
    """
    folder, console = run_dir or Path("runs") / f"{recipe.name}_seeds", Console()
    found: dict[str, float] = {}
    for seed in range(recipe.train.seed, recipe.train.seed + count):
        path = folder / f"seed_{seed}"
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        result = train(seeded, path, resume=resume and path.exists(), console=console, **options)
        if result.interrupted:
            console.print(f"stopped in seed {seed}; go on with the same command and --resume", soft_wrap=True)
            sys.exit(128 + result.interrupted)
        found[str(seed)] = result.best_miou
    values = list(found.values())
    summary = {"mIoU": found, "mean": statistics.mean(values), "deviation": statistics.stdev(values)}
    write_json(folder / "seeds.json", summary)
    console.print("  ".join(f"seed {seed}: {miou:.4f}" for seed, miou in found.items()))
    console.print(f"mIoU {summary['mean']:.4f} +- {summary['deviation']:.4f} ({count} seeds, standard deviation)")
    return summary
