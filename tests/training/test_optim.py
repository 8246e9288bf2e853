import math

import pytest
import torch
from torch import nn

from segformer.config import TrainConfig
from segformer.models.build import build_model
from segformer.models.classifier import build_classifier
from segformer.models.segmenter import Segmenter
from segformer.training.optim import (
    averaged,
    build_optimizer,
    classification_groups,
    cosine_rate,
    polynomial_rate,
    segmentation_groups,
    set_learning_rate,
)

PAPER = TrainConfig(steps=160_000, batch_size=16, eval_every=16_000)


@pytest.fixture
def model() -> Segmenter:
    torch.manual_seed(0)
    return build_model("mit_b0", num_classes=4)


def names_of_groups(model: Segmenter, config: TrainConfig) -> dict[str, set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["name"]: {names[id(p)] for p in group["params"]} for group in segmentation_groups(model, config)}


def layer_norms_of_mit_b0() -> set[str]:
    """Names by hand: two blocks a stage, and a norm after each sequence reduction, which the last stage has not."""
    modules = []
    for i in range(4):
        modules += [f"stages.{i}.embed.norm", f"stages.{i}.norm"]
        for j in range(2):
            modules += [f"stages.{i}.blocks.{j}.norm1", f"stages.{i}.blocks.{j}.norm2"]
            modules += [f"stages.{i}.blocks.{j}.attention.norm"] if i < 3 else []
    return {f"encoder.{module}.{name}" for module in modules for name in ("weight", "bias")}


def test_only_the_encoders_layer_norms_are_not_decayed(model: Segmenter) -> None:
    groups = names_of_groups(model, PAPER)
    assert groups["encoder norms"] == layer_norms_of_mit_b0()
    assert len(groups["encoder norms"]) == 2 * 30
    for name in (
        "encoder.stages.0.embed.project.bias",
        "encoder.stages.1.blocks.0.attention.query.bias",
        "encoder.stages.2.blocks.1.attention.reduce.bias",
        "encoder.stages.3.blocks.1.ffn.depthwise.bias",
        "encoder.stages.3.blocks.1.ffn.contract.weight",
    ):
        assert name in groups["encoder"]


def test_the_whole_decoder_is_decayed(model: Segmenter) -> None:
    projections = {f"decoder.projections.{i}.{name}" for i in range(4) for name in ("weight", "bias")}
    rest = {"fuse.weight", "norm.weight", "norm.bias", "classifier.weight", "classifier.bias"}
    assert names_of_groups(model, PAPER)["decoder"] == projections | {f"decoder.{name}" for name in rest}


@pytest.mark.parametrize("encoder", ["mit_b0", "mit_b2"])
def test_every_parameter_is_in_one_group(encoder: str) -> None:
    with torch.device("meta"):
        model = build_model(encoder, num_classes=4)
    grouped = [id(p) for group in segmentation_groups(model, PAPER) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_rates_and_decay_of_the_groups(model: Segmenter) -> None:
    config = TrainConfig(steps=10, batch_size=1, eval_every=1, lr=1e-3, decoder_lr_factor=7.0, weight_decay=0.05)
    optimizer = build_optimizer(segmentation_groups(model, config), config.lr)
    assert isinstance(optimizer, torch.optim.AdamW)
    rows = {group["name"]: (group["lr"], group["weight_decay"], group["betas"]) for group in optimizer.param_groups}
    assert rows == {
        "encoder": (1e-3, 0.05, (0.9, 0.999)),
        "encoder norms": (1e-3, 0.0, (0.9, 0.999)),
        "decoder": (pytest.approx(7e-3), 0.05, (0.9, 0.999)),
    }
    set_learning_rate(optimizer, 2e-4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-4, 2e-4, 14e-4])


def test_a_step_without_gradients_decays_all_but_the_norms(model: Segmenter) -> None:
    config = TrainConfig(steps=10, batch_size=1, eval_every=1, lr=0.1, decoder_lr_factor=2.0, weight_decay=0.5)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(segmentation_groups(model, config), config.lr).step()
    norms = layer_norms_of_mit_b0()
    for name, parameter in model.named_parameters():
        factor = 1.0 if name in norms else 1 - 0.1 * 0.5 if name.startswith("encoder.") else 1 - 0.2 * 0.5
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, factor), msg=name)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 6e-11),
        (1, 6e-5 * (1 - 1 / 160_000) * (1 - (1499 / 1500) * (1 - 1e-6))),
        (1499, 6e-5 * (158_501 / 160_000) * (1 - (1 / 1500) * (1 - 1e-6))),
        (1500, 5.94375e-5),
        (80_000, 3e-5),
        (159_999, 6e-5 / 160_000),
    ],
)
def test_learning_rate_of_the_paper(step: int, expected: float) -> None:
    assert polynomial_rate(step, PAPER) == pytest.approx(expected, rel=1e-9)


def test_the_rate_rises_until_the_warm_up_ends_and_falls_from_there_to_0() -> None:
    rates = [polynomial_rate(step, PAPER) for step in range(0, 160_000, 100)]
    peak = rates.index(max(rates))
    assert peak == 15
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert polynomial_rate(160_000, PAPER) == 0.0


def test_without_warm_up_and_with_another_power() -> None:
    config = TrainConfig(steps=100, batch_size=1, eval_every=1, lr=1.0, warmup_steps=0, power=0.9)
    assert polynomial_rate(0, config) == 1.0
    assert polynomial_rate(75, config) == pytest.approx(math.pow(0.25, 0.9))


# ImageNet: 300 epochs of 100 steps, 5 of them warm-up
IMAGENET = {"steps": 30_000, "warmup": 500, "first": 1e-6, "peak": 1e-3, "last": 1e-5}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-6),
        (1, 1e-6 + (1e-3 - 1e-6) / 500),
        (250, (1e-6 + 1e-3) / 2),
        (500, 1e-5 + 0.99e-3 * (1 + math.cos(math.pi / 60)) / 2),  # 500 of 30,000: the cosine's 1/60
        (15_000, (1e-3 + 1e-5) / 2),
        (30_000, 1e-5),
    ],
)
def test_the_cosine_by_hand(step: int, expected: float) -> None:
    assert cosine_rate(step, **IMAGENET) == pytest.approx(expected, rel=1e-9)  # type: ignore[arg-type]


def test_the_cosine_is_that_of_timm() -> None:
    from timm.scheduler.cosine_lr import CosineLRScheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = CosineLRScheduler(
        optimizer, t_initial=3000, lr_min=1e-5, warmup_t=50, warmup_lr_init=1e-6, t_in_epochs=False
    )
    for step in range(0, 3000, 7):
        schedule.step_update(step)
        ours = cosine_rate(step, steps=3000, warmup=50, first=1e-6, peak=1e-3, last=1e-5)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_norms_and_biases_of_a_classifier_are_not_decayed() -> None:
    model = build_classifier("mit_b0", num_classes=3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = classification_groups(model, 0.05)
    decayed, others = ({names[id(p)] for p in group["params"]} for group in groups)
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert others == norms | {name for name in names.values() if name.endswith(".bias")}
    assert decayed == set(names.values()) - others
    assert {"head.weight", "encoder.stages.0.blocks.0.ffn.depthwise.weight"} <= decayed
    optimizer = build_optimizer(groups, 1e-3)
    rows = [(group["lr"], group["weight_decay"], group["betas"]) for group in optimizer.param_groups]
    assert rows == [(1e-3, 0.05, (0.9, 0.999)), (1e-3, 0.0, (0.9, 0.999))]
    set_learning_rate(optimizer, 2e-4)  # these groups have no factor
    assert [group["lr"] for group in optimizer.param_groups] == [2e-4, 2e-4]


def test_the_average_starts_from_its_first_update() -> None:
    layer = nn.Linear(1, 1, bias=False)
    assert averaged(layer, None) is None
    average = averaged(layer, 0.75)
    assert average is not None
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(layer.weight, value)
        average.update_parameters(layer)
    assert average.module.weight.item() == 0.75 * (0.75 * 1.0 + 0.25 * 2.0) + 0.25 * 4.0
