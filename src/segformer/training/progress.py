"""How far a training run has come."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OLD_NAMES = {"best_miou": "best", "best_top1": "best"}  # as version 0.1.0 wrote them


@dataclass
class Progress:
    """Steps taken and evaluated so far, and the best evaluation among them."""

    step: int = 0
    """Optimizer steps taken."""
    evaluated: int = 0
    """Step of the last evaluation; 0: none yet."""
    best: float = -1.0
    """Best value so far of the figure that decides."""
    best_step: int = 0
    """Step of the best evaluation; 0: none yet, or not known."""

    def to_state(self) -> dict[str, Any]:
        """Return the plain values that trainer.pt holds."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Progress":
        """Read what trainer.pt holds, also from a run that version 0.1.0 saved."""
        return cls(**{OLD_NAMES.get(name, name): value for name, value in state.items()})
