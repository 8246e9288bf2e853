"""The progress of a training run, as saved in trainer.pt."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OLD_NAMES = {"best_miou": "best", "best_top1": "best"}  # names that version 0.1.0 wrote -> names of today


@dataclass
class Progress:
    """Steps taken so far, and the last and the best evaluation."""

    step: int = 0
    """Number of optimizer steps taken."""
    evaluated: int = 0
    """Step of the last evaluation; 0: not evaluated yet."""
    best: float = -1.0
    """Best value so far of the metric that decides which model is the best."""
    best_step: int = 0
    """Step of the best evaluation; 0: not evaluated yet, or unknown."""

    def to_state(self) -> dict[str, Any]:
        """Return the progress as a dict for trainer.pt."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Progress":
        """Return the progress that was saved in trainer.pt, by this version or by 0.1.0."""
        return cls(**{OLD_NAMES.get(name, name): value for name, value in state.items()})
