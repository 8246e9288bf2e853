from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from segformer.data.sources.catalog import open_data
from segformer.errors import UserError
from segformer.training.segmentation import SegmentationTask, segmentation_plan
from small_runs import recipe_for

CPU = Fabric(accelerator="cpu", devices=1)


def test_the_plan_is_that_of_the_recipe() -> None:
    config = recipe_for(Path(), ema=0.5, patience=3, micro_batch_size=2, deterministic=True, wandb="x").train
    plan = segmentation_plan(config)
    for name in ("steps", "batch_size", "micro_batch_size", "eval_every", "log_every", "seed", "precision", "ema",
                 "patience", "deterministic", "wandb"):  # fmt: skip
        assert getattr(plan, name) == getattr(config, name)
    assert plan.clip_grad is None


def test_what_would_fail_later_is_refused_at_once(small_data: Path) -> None:
    task = SegmentationTask(recipe_for(small_data))
    task.check(2, resume=False)
    with pytest.raises(UserError, match=r"train\.batch_size must be a multiple of the number of devices \(3\), got 4"):
        task.check(3, resume=False)
    for changes, message in (
        ({"loss": "focall"}, r"train\.loss must be one of .*did you mean 'focal'"),
        ({"loss": "focal", "loss_options": (("alpha", 1.0),)}, "gamma"),
        ({"class_weights": (1.0, 2.0)}, r"train\.class_weights must have 3 values, got 2"),
    ):
        with pytest.raises(UserError, match=message):
            SegmentationTask(recipe_for(small_data, **changes)).check(1, resume=False)
    (small_data / "masks" / "train" / "004.png").unlink()
    with pytest.raises(UserError, match=r"004\.png: no mask"):
        SegmentationTask(recipe_for(small_data)).check(1, resume=False)


def test_the_announcement(small_data: Path) -> None:
    task = SegmentationTask(recipe_for(small_data, micro_batch_size=2))
    assert task.announcement(CPU) == (
        f"mit_b0 on {small_data}: 10 train, 4 val images, 3 classes; 8 steps of 4 = 2 x 2 on cpu"
    )


def test_the_batches_of_two_processes_are_one(small_data: Path) -> None:
    task = SegmentationTask(recipe_for(small_data, steps=2))
    (whole, _), *_ = task.batches(0, rank=0, world_size=1)
    halves = [next(iter(task.batches(0, rank=rank, world_size=2)))[0] for rank in range(2)]
    assert whole.shape == (4, 3, 40, 48)
    assert torch.equal(whole[0::2], halves[0])
    assert torch.equal(whole[1::2], halves[1])


def test_advice_names_only_what_is_left_to_change(small_data: Path) -> None:
    task = SegmentationTask(recipe_for(small_data, micro_batch_size=2))
    assert task.memory_advice == (
        "set train.micro_batch_size below 2 (the step stays the same), or set train.checkpointing, "
        "or set train.precision bf16, or lower data.crop"
    )
    frugal = recipe_for(small_data, micro_batch_size=1, checkpointing=True, precision="bf16")
    assert SegmentationTask(frugal).memory_advice == "lower data.crop"
    assert SegmentationTask(frugal).divergence_advice == "lower train.lr, or set train.precision fp32"
    assert task.divergence_advice == "lower train.lr"


def test_facts_and_class_weights(small_data: Path) -> None:
    task = SegmentationTask(recipe_for(small_data, balanced=True))
    facts = task.facts()
    assert facts["data"]["images"] == {"train": 10, "val": 4}
    assert facts["data"]["classes"] == ["ground", "disc", "square"]
    assert facts["class_weights"] == task.class_weights
    assert len(facts["class_weights"]) == 3


def test_an_evaluation_is_stamped_on_the_model(small_data: Path) -> None:
    task = SegmentationTask(recipe_for(small_data), open_data(str(small_data)))
    model = task.build(small_data / "no such folder", print)
    seen: list[tuple[int, int]] = []
    evaluation = task.evaluate(model, CPU, lambda *at: seen.append(at))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(evaluation.figures) == ["mIoU", "mAcc", "aAcc"]
    task.stamp(model, 7, evaluation)
    assert model.card.provenance["step"] == 7
    assert model.card.provenance["val"] == evaluation.figures
    assert replace(model.card, provenance={}) == replace(task.build(small_data / "none", print).card, provenance={})
