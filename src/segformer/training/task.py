"""The contract between the one training loop and what it trains."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segformer.arrays import Array
from segformer.config import Precision
from segformer.resumable import OnProgress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Batch = tuple[Tensor, Tensor]
"""Images and targets."""
BatchLoss = Callable[[Any, Tensor, Tensor], Tensor]
"""(outputs of the training module, images, targets) of a micro-batch -> its part of the loss of the whole batch."""
Note = Callable[[str], None]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the training loop reads of a recipe, in steps."""

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Images per optimizer step, over all devices and micro-batches."""
    micro_batch_size: int | None
    """Images per forward pass and device; None: the whole share of a device at once."""
    eval_every: int
    """Steps between evaluations; the last step is always evaluated."""
    log_every: int
    """Steps between lines of metrics.jsonl."""
    seed: int
    """Seed of the run."""
    precision: Precision
    """Automatic mixed precision of the forward pass."""
    ema: float | None = None
    """Decay per step of the averaged weights; None: no average."""
    patience: int | None = None
    """Number of evaluations without a better one after which training stops; None: never."""
    clip_grad: float | None = None
    """Largest norm of the gradient; None: no limit."""
    deterministic: bool = False
    """Whether only deterministic algorithms are used."""
    wandb: str | None = None
    """Project of Weights & Biases to log to; None: no logging there."""


@dataclass(frozen=True)
class Validation:
    """Outcome of the evaluation of a model in the course of its training."""

    figures: Mapping[str, float]
    """Figures by the names under which they are logged."""
    details: Any = None
    """Whatever else the report of the task shows."""


class Task(ABC, Generic[M]):
    """One kind of training: its model, data, loss, evaluation and files.

    ``Run`` calls the methods in the order in which they stand here.  Opening a task opens its data; ``check`` then
    raises a UserError for anything that would fail later.  A task that needs a second model, such as a teacher, moves
    it to the device in ``prepare`` and calls it in the function that ``loss`` returns.
    """

    recipe: Any
    """The dataclass that recipe.json holds."""
    plan: Plan
    notes: tuple[str, ...] = ()
    """What the user should know about how the data were read."""
    split: str = "val"
    """Split that is evaluated."""
    metric: str
    """Name of the figure of an evaluation that decides which model is the best."""
    worst: float = -1.0
    """A value of that figure below every possible one."""
    labels: Mapping[str, str] = MappingProxyType({})
    """How figures are called where people read them, if not by their names."""

    @abstractmethod
    def check(self, world_size: int, *, resume: bool) -> None:
        """Raise a UserError for anything that would make this run fail on ``world_size`` devices."""

    @abstractmethod
    def read_recipe(self, path: Path) -> Any:
        """Read a recipe.json of this kind of task."""

    @abstractmethod
    def announcement(self, fabric: "Fabric") -> str:
        """Return one line that says what is trained on what."""

    @abstractmethod
    def build(self, last: Path, note: Note) -> M:
        """Return the model before its first step, or one of the same architecture as that saved in ``last``."""

    def restore(self, model: M, state: dict[str, Any], last: Path) -> None:
        """Load the weights that ``last`` or the ``state`` of its trainer.pt holds."""
        model.load_state_dict(state["model"])

    def prepare(self, model: M, fabric: "Fabric") -> nn.Module:
        """Put the model into training mode and return the module that a step calls."""
        return model.train()

    @abstractmethod
    def build_optimizer(self, model: M) -> torch.optim.Optimizer:
        """Return the optimizer; a group's learning rate is that of ``learning_rate`` times its ``lr_factor``."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the manifest records about the data."""

    @abstractmethod
    def batches(self, start: int, *, rank: int, world_size: int) -> DataLoader[Batch]:
        """Return this process's share of the batches from step ``start`` on."""

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step counted from 0."""

    @abstractmethod
    def seed_of_step(self, step: int, rank: int) -> int:
        """Return the seed of everything that is random within a step."""

    def augment(self, batch: Batch, seed: int) -> Batch:
        """Augment a whole batch on its device."""
        return batch

    @abstractmethod
    def loss(self, batch: Batch, fabric: "Fabric") -> BatchLoss:
        """Return the loss of a micro-batch of ``batch``; over all micro-batches and devices it adds up to the mean."""

    @property
    @abstractmethod
    def memory_advice(self) -> str:
        """What to change when memory runs out."""

    @property
    @abstractmethod
    def divergence_advice(self) -> str:
        """What to change when the loss is no longer finite."""

    @abstractmethod
    def evaluate(self, model: M, fabric: "Fabric", progress: OnProgress) -> Validation:
        """Evaluate this process's share of the split; every process returns the figures of the whole split."""

    def is_better(self, value: float, best: float) -> bool:
        """Whether a value of the deciding figure is better than the best one so far."""
        return value > best

    def counter(self, step: int) -> tuple[str, int]:
        """Return the unit in which people count this training, and how many of it have passed."""
        return "step", step

    def pictures(self, model: M) -> Array | None:
        """Return a picture (H, W, 3) uint8 of predictions for the logs, if the task has one."""
        return None

    def stamp(self, model: M, step: int, evaluation: Validation) -> None:
        """Write the outcome of an evaluation into the model's own description, if it has one."""

    @abstractmethod
    def write_best(self, model: M, folder: Path, step: int, evaluation: Validation) -> None:
        """Replace ``folder`` by the best model."""

    def state(self, model: M) -> dict[str, Any]:
        """Return what trainer.pt holds for ``restore``."""
        return {"model": model.state_dict()}

    def write_last(self, model: M, folder: Path) -> None:
        """Write further files beside trainer.pt."""

    @abstractmethod
    def write_page(self, model: M, run_dir: Path, evaluation: Validation) -> Path:
        """Write report.html into the run folder and return its path."""
