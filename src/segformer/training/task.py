"""The interface between the training loop and the kinds of training that it runs."""

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
"""Maps (module outputs, images, targets) of a micro-batch to its contribution to the loss of the whole batch."""
Note = Callable[[str], None]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a recipe that the training loop reads, with durations in steps."""

    steps: int
    """Number of optimizer steps."""
    batch_size: int
    """Images per optimizer step, over all devices and accumulated micro-batches."""
    micro_batch_size: int | None
    """Images per forward pass on one device; None: the device's whole share of the batch."""
    eval_every: int
    """Steps between evaluations; the last step is always evaluated."""
    log_every: int
    """Steps between lines of metrics.jsonl."""
    seed: int
    """Seed for initialization, sample order, augmentation and dropout."""
    precision: Precision
    """Number format of the forward pass: fp32, or automatic mixed precision with bf16 or fp16."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights; None: off."""
    patience: int | None = None
    """Stop after this many evaluations without a better result; None: never."""
    clip_grad: float | None = None
    """Norm to which a larger gradient is clipped; None: no clipping."""
    deterministic: bool = False
    """Whether torch uses deterministic algorithms for all operations that have one."""
    wandb: str | None = None
    """Weights & Biases project to log to, in addition to the files; None: off."""


@dataclass(frozen=True)
class Validation:
    """Outcome of an evaluation during training."""

    figures: Mapping[str, float]
    """Values of the metrics by the names under which they are logged, such as mIoU."""
    details: Any = None
    """Further results that the report page of the task shows."""


class Task(ABC, Generic[M]):
    """One kind of training: its model, data, loss, evaluation and files.

    The training loop calls the methods roughly in the order of this file.  Creating a task opens its data; ``check``
    then raises a UserError for anything that would fail later.  A task that needs a second model, such as a teacher,
    moves it to the device in ``prepare`` and calls it in the function that ``loss`` returns.
    """

    recipe: Any
    """The recipe, a dataclass that is saved as recipe.json."""
    plan: Plan
    notes: tuple[str, ...] = ()
    """Remarks for the user about how the data was read."""
    split: str = "val"
    """Name of the split that is evaluated."""
    metric: str
    """Name of the metric that decides which model is the best."""
    worst: float = -1.0
    """Value that is worse than every possible value of ``metric``; the first evaluation is compared with it."""
    labels: Mapping[str, str] = MappingProxyType({})
    """Names of metrics for display; a metric without an entry is shown under its own name."""

    @abstractmethod
    def check(self, world_size: int, *, resume: bool) -> None:
        """Raise a UserError for anything that would make a run on ``world_size`` devices fail later."""

    @abstractmethod
    def read_recipe(self, path: Path) -> Any:
        """Return the recipe that a recipe.json of this kind of task contains."""

    @abstractmethod
    def announcement(self, fabric: "Fabric") -> str:
        """Return one line that names the model, the data, the length of the training and the devices."""

    @abstractmethod
    def build(self, last: Path, note: Note) -> M:
        """Return the initial model; if a run is resumed, return a model of the architecture saved in ``last``."""

    def restore(self, model: M, state: dict[str, Any], last: Path) -> None:
        """Load the saved weights, from the folder ``last`` or from ``state``, the contents of its trainer.pt."""
        model.load_state_dict(state["model"])

    def prepare(self, model: M, fabric: "Fabric") -> nn.Module:
        """Put the model into training mode and return the module to train, which may wrap the model."""
        return model.train()

    @abstractmethod
    def build_optimizer(self, model: M) -> torch.optim.Optimizer:
        """Return the optimizer; each group is trained with ``learning_rate`` times the ``lr_factor`` of the group."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the entries of manifest.json that describe the data and the task."""

    @abstractmethod
    def batches(self, start: int, *, rank: int, world_size: int) -> DataLoader[Batch]:
        """Return a loader of this process's share of each batch, from step ``start`` on."""

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step; steps are counted from 0."""

    @abstractmethod
    def seed_of_step(self, step: int, rank: int) -> int:
        """Return the seed of everything that is random within a step on process ``rank``, such as dropout."""

    def augment(self, batch: Batch, seed: int) -> Batch:
        """Return the batch, already on the device, after augmentation; unchanged if a task does not override this."""
        return batch

    @abstractmethod
    def loss(self, batch: Batch, fabric: "Fabric") -> BatchLoss:
        """Return the function that computes the loss of a micro-batch of ``batch``.

        The values of the function are summed over the micro-batches and averaged over the devices.  The result must be
        the mean loss of the whole batch.
        """

    @property
    @abstractmethod
    def memory_advice(self) -> str:
        """Text that tells the user what to change if memory runs out."""

    @property
    @abstractmethod
    def divergence_advice(self) -> str:
        """Text that tells the user what to change if the loss becomes NaN or infinite."""

    @abstractmethod
    def evaluate(self, model: M, fabric: "Fabric", progress: OnProgress) -> Validation:
        """Evaluate this process's share of the split; every process returns the metrics of the whole split."""

    def is_better(self, value: float, best: float) -> bool:
        """Return whether a value of ``metric`` is better than the best one so far."""
        return value > best

    def counter(self, step: int) -> tuple[str, int]:
        """Return (unit, number of units done) for display after ``step`` steps, such as ("epoch", 3)."""
        return "step", step

    def pictures(self, model: M) -> Array | None:
        """Return a picture of predictions for the logs, or None if the task draws none.  (H, W, 3) uint8"""
        return None

    def stamp(self, model: M, step: int, evaluation: Validation) -> None:
        """Record the outcome of an evaluation in the model's card; a task whose models have no card does nothing."""

    @abstractmethod
    def write_best(self, model: M, folder: Path, step: int, evaluation: Validation) -> None:
        """Save the best model so far in ``folder``, in place of an earlier one."""

    def state(self, model: M) -> dict[str, Any]:
        """Return the entries of trainer.pt that ``restore`` reads."""
        return {"model": model.state_dict()}

    def write_last(self, model: M, folder: Path) -> None:
        """Write the files that the task needs beside trainer.pt, if any."""

    @abstractmethod
    def write_page(self, model: M, run_dir: Path, evaluation: Validation) -> Path:
        """Write report.html into the run folder and return its path."""
