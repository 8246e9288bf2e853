"""The contract, by the smallest task that fulfills it: a line fitted to points, next to nothing of segmentation."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segformer.config import TrainConfig
from segformer.errors import UserError
from segformer.files import read_json, write_json
from segformer.json_config import from_json
from segformer.resumable import OnProgress
from segformer.training.loader import StepBatches, build_loader
from segformer.training.run import run_task
from segformer.training.run_folder import RunFolder, read_metrics
from segformer.training.segmentation import segmentation_plan
from segformer.training.task import Batch, BatchLoss, Note, Task, Validation
from small_runs import QUIET, assert_same_weights, stop_in_evaluation, stop_in_step

CONFIG = TrainConfig(steps=6, batch_size=4, eval_every=2, log_every=1, lr=0.05, ema=0.5)


class Points(Dataset[tuple[Tensor, Tensor]]):
    """Points of y = 3 x."""

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x = torch.full((1,), 0.1 * item[1])
        return x, 3 * x


class LineTask(Task[nn.Linear]):
    """Fits a line; a teacher, whose answers are the targets of half the loss, stands for distillation's."""

    metric = "error"
    worst = float("inf")

    def __init__(self, config: TrainConfig = CONFIG) -> None:
        self.recipe = config
        self.plan = segmentation_plan(config)
        self.teacher = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.teacher.weight, 3.0)

    def check(self, world_size: int, *, resume: bool) -> None:
        if self.recipe.steps > 100:
            raise UserError("too many steps for a line")

    def read_recipe(self, path: Path) -> TrainConfig:
        return from_json(TrainConfig, read_json(path))

    def announcement(self, fabric: Fabric) -> str:
        return "a line"

    def build(self, last: Path, note: Note) -> nn.Linear:
        return nn.Linear(1, 1, bias=False)

    def prepare(self, model: nn.Linear, fabric: Fabric) -> nn.Module:
        self.teacher.to(fabric.device).requires_grad_(False)
        return model.train()

    def build_optimizer(self, model: nn.Linear) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.recipe.lr)

    def facts(self) -> dict[str, Any]:
        return {"data": "points"}

    def batches(self, start: int, *, rank: int, world_size: int) -> DataLoader[Batch]:
        batches = StepBatches(8, steps=6, batch_size=4, seed=0, start=start, rank=rank, world_size=world_size)
        return build_loader(Points(), workers=0, batch_sampler=batches)

    def learning_rate(self, step: int) -> float:
        return self.recipe.lr / (1 + step)

    def seed_of_step(self, step: int, rank: int) -> int:
        return step

    def loss(self, batch: Batch, fabric: Fabric) -> BatchLoss:
        size = len(batch[0])

        def loss(outputs: Tensor, x: Tensor, y: Tensor) -> Tensor:
            taught = self.teacher(x)
            return ((outputs - y).square().sum() + (outputs - taught).square().sum()) / (2 * size)

        return loss

    memory_advice = "buy more"
    divergence_advice = "slow down"

    def evaluate(self, model: nn.Linear, fabric: Fabric, progress: OnProgress) -> Validation:
        progress(1, 1)
        return Validation({"error": abs(model.weight.item() - 3.0)})

    def is_better(self, value: float, best: float) -> bool:
        return value < best

    def write_best(self, model: nn.Linear, folder: Path, step: int, evaluation: Validation) -> None:
        write_json(folder / "line.json", {"step": step, "slope": model.weight.item(), **evaluation.figures})

    def write_page(self, model: nn.Linear, run_dir: Path, evaluation: Validation) -> Path:
        write_json(run_dir / "report.html", dict(evaluation.figures))
        return run_dir / "report.html"


def fit(run: Path, *, resume: bool = False, task: type[LineTask] = LineTask) -> Any:
    return run_task(task, Fabric(accelerator="cpu", devices=1), RunFolder(run), resume=resume, reporter=QUIET)


def test_any_task_is_trained(tmp_path: Path) -> None:
    outcome = fit(tmp_path / "run")
    assert (outcome.step, outcome.interrupted) == (6, None)
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 7))
    assert [line["lr"] for line in lines if "loss" in line] == [0.05 / (1 + step) for step in range(6)]
    errors = {line["step"]: line["val/error"] for line in lines if "val/error" in line}
    assert list(errors) == [2, 4, 6]
    assert outcome.best == min(errors.values()) == errors[outcome.best_step]  # lower is better
    best = json.loads((tmp_path / "run" / "best" / "line.json").read_text())
    assert (best["step"], best["error"]) == (outcome.best_step, outcome.best)
    assert json.loads((tmp_path / "run" / "report.html").read_text()) == {"error": errors[6]}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["data"], manifest["processes"], manifest["device"]) == ("points", 1, "cpu")


def test_the_loss_by_hand(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    torch.manual_seed(0)
    slope = nn.Linear(1, 1, bias=False).weight.item()
    for step, batch in enumerate(LineTask().batches(0, rank=0, world_size=1)):
        x = batch[0].double()
        loss = (((slope - 3) * x) ** 2).mean().item()
        logged = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line][step]
        assert logged == pytest.approx(loss, rel=1e-4)
        slope -= 0.05 / (1 + step) * (2 * (slope - 3) * x**2).mean().item()


@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_any_task_is_interrupted_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    whole = fit(tmp_path / "whole")
    with monkeypatch.context() as patch:
        if where == "step":
            stop_in_step(3, signal.SIGTERM, patch)
        else:
            stop_in_evaluation(signal.SIGTERM, patch)
        stopped = fit(tmp_path / "parts")
        assert (stopped.step, stopped.interrupted) == (3 if where == "step" else 2, signal.SIGTERM)
    with monkeypatch.context() as patch:  # interrupted again, in the evaluation that is owed or in the next one
        stop_in_evaluation(signal.SIGINT, patch)
        again = fit(tmp_path / "parts", resume=True)
        assert (again.step, again.interrupted) == (4 if where == "step" else 2, signal.SIGINT)
    resumed = fit(tmp_path / "parts", resume=True)
    assert (resumed.best, resumed.best_step) == (whole.best, whole.best_step)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    lines = [
        [{**line, "seconds": 0, "images_per_second": 0} for line in read_metrics(tmp_path / run)]
        for run in ("whole", "parts")
    ]
    assert lines[0] == lines[1]


def test_patience_counts_from_the_best(tmp_path: Path) -> None:
    class Impatient(LineTask):
        def __init__(self) -> None:
            super().__init__()
            self.plan = segmentation_plan(TrainConfig(steps=6, batch_size=4, eval_every=1, patience=2, lr=0.05))

        def evaluate(self, model: nn.Linear, fabric: Fabric, progress: OnProgress) -> Validation:
            return Validation({"error": 1.0})

    outcome = fit(tmp_path / "run", task=Impatient)
    assert (outcome.step, outcome.best_step, outcome.interrupted) == (3, 1, None)
    assert fit(tmp_path / "run", task=Impatient, resume=True).step == 3  # it had ended


def test_what_a_task_refuses_leaves_no_folder(tmp_path: Path) -> None:
    class TooLong(LineTask):
        def __init__(self) -> None:
            super().__init__(TrainConfig(steps=101, batch_size=4, eval_every=2))

    with pytest.raises(UserError, match="too many steps"):
        fit(tmp_path / "run", task=TooLong)
    assert not (tmp_path / "run").exists()


def test_the_advice_of_a_task_is_given(tmp_path: Path) -> None:
    class Diverging(LineTask):
        def loss(self, batch: Batch, fabric: Fabric) -> BatchLoss:
            return lambda outputs, *_: outputs.sum() * float("nan")

    class Greedy(LineTask):
        def loss(self, batch: Batch, fabric: Fabric) -> BatchLoss:
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Broken(LineTask):
        def loss(self, batch: Batch, fabric: Fabric) -> BatchLoss:
            raise RuntimeError("a bug")

    with pytest.raises(UserError, match="the loss became nan at step 0; slow down"):
        fit(tmp_path / "nan", task=Diverging)
    with pytest.raises(UserError, match="out of memory at step 0; buy more"):
        fit(tmp_path / "memory", task=Greedy)
    with pytest.raises(RuntimeError, match="a bug"):
        fit(tmp_path / "bug", task=Broken)
