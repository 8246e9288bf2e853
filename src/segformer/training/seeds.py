"""Training of one recipe with several seeds: mean and standard deviation of the mIoU."""

import signal
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segformer.config import Recipe
from segformer.files import write_json
from segformer.training.segmentation import train


@dataclass(frozen=True)
class SeedsResult:
    """Outcome of training with several seeds; ``interrupted`` is the signal that stopped the series early, or None."""

    miou: dict[int, float]
    """Best mIoU of each finished run, by its seed."""
    interrupted: signal.Signals | None = None

    @property
    def mean(self) -> float:
        """Mean of the mIoU over the seeds."""
        return statistics.mean(self.miou.values())

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the mIoU over the seeds, of which there must be at least two."""
        return statistics.stdev(self.miou.values())

    def to_json(self) -> dict[str, Any]:
        """Return the contents of seeds.json."""
        miou = {str(seed): value for seed, value in self.miou.items()}
        return {"mIoU": miou, "mean": self.mean, "deviation": self.deviation}


def train_seeds(
    recipe: Recipe, count: int, run_dir: Path | None = None, *, resume: bool = False, **options: Any
) -> SeedsResult:
    """Train with ``count`` seeds from train.seed on, seed K in the folder seed_K; writes seeds.json, too.

    With ``resume``, finished runs are kept, and the first unfinished run is resumed.  A stop signal ends the whole
    series.  ``options`` are passed to ``train``.
    """
    folder = run_dir or Path("runs") / f"{recipe.name}_seeds"
    found: dict[int, float] = {}
    for seed in range(recipe.train.seed, recipe.train.seed + count):
        path = folder / f"seed_{seed}"
        seeded = replace(recipe, train=replace(recipe.train, seed=seed))
        result = train(seeded, path, resume=resume and path.exists(), **options)
        if result.interrupted:
            return SeedsResult(found, result.interrupted)
        found[seed] = result.best_miou
    series = SeedsResult(found)
    write_json(folder / "seeds.json", series.to_json())
    return series
