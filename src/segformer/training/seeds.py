"""The same recipe with several seeds: mean and standard deviation of its mIoU."""

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
    """Outcome of the runs with several seeds; ``interrupted`` is the signal that ended the last of them early."""

    miou: dict[int, float]
    """Best mIoU of each seed whose run is finished."""
    interrupted: signal.Signals | None = None

    @property
    def mean(self) -> float:
        """Mean of the mIoU."""
        return statistics.mean(self.miou.values())

    @property
    def deviation(self) -> float:
        """Standard deviation of the mIoU over at least two seeds."""
        return statistics.stdev(self.miou.values())

    def to_json(self) -> dict[str, Any]:
        """Return what seeds.json holds."""
        miou = {str(seed): value for seed, value in self.miou.items()}
        return {"mIoU": miou, "mean": self.mean, "deviation": self.deviation}


def train_seeds(
    recipe: Recipe, count: int, run_dir: Path | None = None, *, resume: bool = False, **options: Any
) -> SeedsResult:
    """Train with the seeds train.seed, train.seed + 1, ... into folders seed_K, with seeds.json beside them.

    ``resume`` leaves finished runs as they are and resumes the first unfinished one.  A signal ends the whole series.
    ``options`` are those of ``train``.
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
