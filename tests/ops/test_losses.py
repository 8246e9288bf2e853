import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.errors import UserError
from segformer.ops import upsample_cross_entropy as banded
from segformer.ops.losses import LOSSES, LossRow, dice_loss, focal_loss, ohem_cross_entropy, resolve_loss
from segformer.ops.upsample_cross_entropy import Average, upsample_cross_entropy

Loss = Callable[..., Tensor]
EVERY_LOSS = pytest.mark.parametrize("loss", [ohem_cross_entropy, focal_loss, dice_loss])
EVERY_AVERAGE = pytest.mark.parametrize("average", ["all", "valid", "sum"])
EITHER_ALIGNMENT = pytest.mark.parametrize("align_corners", [False, True])
EITHER_WEIGHTS = pytest.mark.parametrize("weighted", [False, True])


def labels(batch: int, classes: int, height: int, width: int, ignored: float = 0.2) -> Tensor:
    target = torch.randint(0, classes, (batch, height, width), dtype=torch.uint8)
    target[torch.rand(target.shape) < ignored] = 255
    return target


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels (some of them ignored) and class weights."""
    torch.manual_seed(0)
    weights = torch.rand(5, dtype=dtype) + 0.1
    return 2 * torch.randn(3, 5, 4, 5, dtype=dtype), labels(3, 5, 13, 11), weights


def gradient(loss: Loss, logits: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target, **options)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


def sample(axis: int, size: int, align_corners: bool) -> np.ndarray:
    """Matrix that interpolates one axis linearly.  (size, axis)"""
    positions = np.linspace(0, axis - 1, size) if align_corners else (np.arange(size) + 0.5) * axis / size - 0.5
    distances = np.abs(positions.clip(0, axis - 1)[:, None] - np.arange(axis))
    return (1 - distances).clip(min=0)


def pixels(logits: Tensor, target: Tensor, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and labels (N,) of the pixels that are not ignored, by NumPy."""
    down, across = (sample(logits.shape[i], target.shape[i - 1], align_corners) for i in (2, 3))
    scores = np.einsum("yh,xw,bkhw->byxk", down, across, logits.numpy())[target.numpy() != 255]
    exponentials = np.exp(scores)
    return exponentials / exponentials.sum(axis=1, keepdims=True), target.numpy()[target.numpy() != 255].astype(int)


@EITHER_ALIGNMENT
@EITHER_WEIGHTS
@pytest.mark.parametrize(
    ("threshold", "min_kept"), [(0.1, 0), (0.1, 1), (0.7, 40), (0.1, 200), (0.0, 50), (0.7, 10**5)]
)
def test_ohem_against_numpy(align_corners: bool, weighted: bool, threshold: float, min_kept: int) -> None:
    logits, target, weights = data()
    probabilities, classes = pixels(logits, target, align_corners)
    true = probabilities[np.arange(len(classes)), classes]
    order = np.argsort(true)
    kept = order[: max((true < threshold).sum(), min_kept)]
    factor = weights.numpy()[classes[kept]] if weighted else np.ones(len(kept))
    expected = (factor * -np.log(true[kept])).sum() / factor.sum()
    options: dict[str, Any] = {"class_weights": weights if weighted else None, "align_corners": align_corners}
    loss = ohem_cross_entropy(logits, target, threshold=threshold, min_kept=min_kept, **options)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("threshold", "min_kept", "hard"),
    [
        (0.7, 0, [0.2, 0.6, 0.5]),  # below the threshold
        (0.7, 2, [0.2, 0.6, 0.5]),  # more than asked for
        (0.7, 4, [0.2, 0.6, 0.5, 0.8]),  # filled up with the next hardest, which the other image holds
        (0.3, 2, [0.2, 0.5]),
        (0.1, 1, [0.2]),
        (0.1, 99, [0.2, 0.6, 0.5, 0.8, 0.9, 0.95]),  # all that are valid
        (1.5, 0, [0.2, 0.6, 0.5, 0.8, 0.9, 0.95]),
    ],
)
def test_ohem_selects_by_hand(threshold: float, min_kept: int, hard: list[float]) -> None:
    true = torch.tensor([[[0.9, 0.2], [0.95, 0.01]], [[0.6, 0.02], [0.5, 0.8]]], dtype=torch.float64)
    target = torch.tensor([[[0, 1], [1, 255]], [[0, 255], [1, 1]]], dtype=torch.uint8)  # the two hardest are ignored
    first = torch.where(target == 1, 1 - true, true)
    logits = torch.stack([first, 1 - first], dim=1).log()
    loss, slope = gradient(ohem_cross_entropy, logits, target, threshold=threshold, min_kept=min_kept)
    assert loss.item() == pytest.approx(sum(-math.log(p) for p in hard) / len(hard))
    selected = true[slope.abs().sum(dim=1) > 0]
    assert sorted(selected.tolist()) == sorted(hard)


def test_ohem_without_easy_pixels_is_cross_entropy() -> None:
    logits, target, weights = data(torch.float32)
    mined = gradient(ohem_cross_entropy, logits, target, class_weights=weights)  # min_kept is larger than the image
    plain = gradient(upsample_cross_entropy, logits, target, class_weights=weights)
    assert torch.equal(mined[0], plain[0])
    assert torch.equal(mined[1], plain[1])


def test_ohem_where_nothing_is_hard() -> None:
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    logits = torch.tensor([9.0, -9.0]).view(1, 2, 1, 1)
    loss, slope = gradient(ohem_cross_entropy, logits, target, min_kept=0)
    assert loss == 0
    assert torch.equal(slope, torch.zeros_like(slope))


def test_ohem_prefers_certain_pixels_to_ignored_ones() -> None:
    target = torch.tensor(
        [[[255] * 100 + [0] * 9 + [1] + [255] * 100]], dtype=torch.uint8
    )  # 0 has loss 0, 1 has loss 100
    logits = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1)
    for min_kept, expected in [(1, 100.0), (4, 25.0), (10, 10.0), (50, 10.0)]:
        assert ohem_cross_entropy(logits, target, min_kept=min_kept).item() == pytest.approx(expected)


def test_ohem_does_not_hide_nan() -> None:
    logits = torch.full((1, 3, 2, 2), torch.nan)
    assert ohem_cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.uint8), min_kept=0).isnan()


@EVERY_AVERAGE
@EITHER_ALIGNMENT
@EITHER_WEIGHTS
@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_against_numpy(average: Average, align_corners: bool, weighted: bool, gamma: float) -> None:
    logits, target, weights = data()
    probabilities, classes = pixels(logits, target, align_corners)
    true = probabilities[np.arange(len(classes)), classes]
    factor = weights.numpy()[classes] if weighted else np.ones(len(classes))
    total = (factor * (1 - true) ** gamma * -np.log(true)).sum()
    expected = total / {"all": target.numel(), "valid": factor.sum(), "sum": 1}[average]
    options: dict[str, Any] = {"class_weights": weights if weighted else None, "align_corners": align_corners}
    loss = focal_loss(logits, target, gamma=gamma, average=average, **options)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


@EVERY_AVERAGE
@EITHER_WEIGHTS
def test_focal_of_gamma_0_is_cross_entropy(average: Average, weighted: bool) -> None:
    logits, target, weights = data()
    options: dict[str, Any] = {"class_weights": weights if weighted else None, "average": average}
    loss, slope = gradient(focal_loss, logits, target, gamma=0.0, **options)
    expected, expected_slope = gradient(upsample_cross_entropy, logits, target, **options)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0])
def test_focal_of_certain_pixels_is_finite(gamma: float) -> None:
    logits = torch.tensor([500.0, -500.0]).view(1, 2, 1, 1)  # p is exactly 1, or exactly 0
    for label in (0, 1):
        loss, slope = gradient(focal_loss, logits, torch.full((1, 3, 3), label, dtype=torch.uint8), gamma=gamma)
        assert loss.item() == pytest.approx(1000.0 * label)
        assert slope.isfinite().all()


@EITHER_ALIGNMENT
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_against_numpy(align_corners: bool, smooth: float) -> None:
    logits, target, _ = data()
    target[target == 3] = 1  # a class that does not occur
    probabilities, classes = pixels(logits, target, align_corners)
    scores = []
    for index in (0, 1, 2, 4):
        p, y = probabilities[:, index], classes == index
        scores.append((2 * (p * y).sum() + smooth) / (p.sum() + y.sum() + smooth))
    loss = dice_loss(logits, target, smooth=smooth, align_corners=align_corners)
    assert loss.item() == pytest.approx(1 - np.mean(scores), rel=1e-12)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_dice_of_a_perfect_and_of_an_opposite_prediction(smooth: float) -> None:
    torch.manual_seed(0)
    target = labels(2, 3, 16, 16)
    truth = F.one_hot(target.masked_fill(target == 255, 0).long(), 4).permute(0, 3, 1, 2)  # class 3 does not occur
    loss, slope = gradient(dice_loss, 100.0 * truth, target, smooth=smooth)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert slope.isfinite().all()
    assert dice_loss(100.0 * truth.roll(1, dims=1), target, smooth=0.0).item() == pytest.approx(1, abs=1e-6)


@EVERY_LOSS
@EITHER_ALIGNMENT
def test_gradcheck(loss: Loss, align_corners: bool) -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    target = labels(2, 3, 5, 4)
    options: dict[str, Any] = {"align_corners": align_corners}
    if loss is not dice_loss:
        options["class_weights"] = torch.rand(3, dtype=torch.float64)
    if loss is ohem_cross_entropy:  # far from a tie: no selection changes within gradcheck's step
        options |= {"min_kept": 9, "threshold": 0.3}
        true = np.sort([p[y] for p, y in zip(*pixels(logits.detach(), target, align_corners), strict=True)])
        assert np.abs(true - 0.3).min() > 1e-4
        assert true[9] - true[8] > 1e-4
        assert len(true) > max(9, (true < 0.3).sum())
    assert torch.autograd.gradcheck(lambda x: loss(x, target, **options), (logits,))


@EVERY_LOSS
@EITHER_WEIGHTS
def test_everything_ignored_is_zero(loss: Loss, weighted: bool) -> None:
    logits = torch.randn(2, 5, 2, 2)
    all_options: list[dict[str, Any]] = [{"class_weights": torch.ones(5) if weighted else None}]
    if loss is dice_loss:
        all_options = [{"smooth": 0.0 if weighted else 1.0}]
    if loss is focal_loss:
        all_options = [all_options[0] | {"gamma": gamma} for gamma in (0.0, 0.5, 2.0)]
    for options in all_options:
        value, slope = gradient(loss, logits, torch.full((2, 8, 8), 255, dtype=torch.uint8), **options)
        assert value == 0
        assert torch.equal(slope, torch.zeros_like(slope))


@EVERY_LOSS
def test_one_image_of_a_batch_ignored_changes_no_gradient_of_the_other(loss: Loss) -> None:
    logits, target, _ = data()
    target[1] = 255
    value, slope = gradient(loss, logits, target)
    expected, expected_slope = gradient(loss, logits[[0, 2]], target[[0, 2]])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope[[0, 2]], expected_slope)
    assert not slope[1].any()


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_upcast(loss: Loss, dtype: torch.dtype) -> None:
    logits, target, _ = data(torch.float32)
    value, slope = gradient(loss, logits.to(dtype), target)
    expected, expected_slope = gradient(loss, logits.to(dtype).float(), target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    assert slope.dtype == dtype
    torch.testing.assert_close(slope, expected_slope.to(dtype))


@EVERY_LOSS
def test_another_ignore_index(loss: Loss) -> None:
    logits, target, _ = data()
    expected = loss(logits, target.masked_fill(target == 1, 255))
    target[target == 255] = 1
    torch.testing.assert_close(loss(logits, target, ignore_index=1), expected)


@EVERY_LOSS
def test_memory_does_not_grow_with_the_batch(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banded, "TILE", 32 * 64 * 64)
    logits, target = torch.randn(4, 32, 16, 16, requires_grad=True), labels(4, 32, 64, 64)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with (
        torch.profiler.profile(profile_memory=True) as profile,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
    ):
        loss(logits, target).backward()
    one_image = 32 * 64 * 64
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 2 * one_image * 4
    assert sum(kept) < one_image


@EVERY_LOSS
def test_bad_shapes(loss: Loss) -> None:
    logits, target = torch.zeros(2, 5, 4, 4), torch.zeros(2, 8, 8, dtype=torch.uint8)
    for wrong in (target[:1], target.unsqueeze(1)):
        with pytest.raises(ValueError, match=r"target must be \(2, height, width\)"):
            loss(logits, wrong)
    with pytest.raises(ValueError, match="size must be a positive"):
        loss(logits, target[:, :0])
    with pytest.raises(ValueError, match=r"logits must be \(batch"):
        loss(logits[:, 0], target)


def test_bad_values() -> None:
    logits, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        focal_loss(logits, target, gamma=-1.0)
    with pytest.raises(ValueError, match="min_kept must be at least 0"):
        ohem_cross_entropy(logits, target, min_kept=-1)


@pytest.mark.parametrize("name", LOSSES)
@EITHER_WEIGHTS
def test_each_row_returns_the_reduction_that_it_declares(name: str, weighted: bool) -> None:
    logits, target, weights = data()
    loss, twice = (
        resolve_loss(name).function(
            logits.repeat(copies, 1, 1, 1),
            target.repeat(copies, 1, 1),
            ignore_index=255,
            class_weights=weights if weighted else None,
            align_corners=False,
        )
        for copies in (1, 2)
    )
    assert twice.item() == pytest.approx(loss.item() * (2 if LOSSES[name].reduction == "sum" else 1), rel=1e-6)


def test_options_reach_the_loss() -> None:
    logits, target, _ = data()
    common: dict[str, Any] = {"ignore_index": 255, "class_weights": None, "align_corners": False}
    focal = resolve_loss("focal", [("gamma", 3.0)])
    assert focal.options == {"gamma": 3.0}
    expected = focal_loss(logits, target, gamma=3.0, average="sum")
    assert torch.equal(focal.function(logits, target, **common), expected)
    ohem = resolve_loss("ohem", [("min_kept", 40.0), ("threshold", 0)])
    assert repr(ohem.options) == "{'threshold': 0.0, 'min_kept': 40}"
    expected = ohem_cross_entropy(logits, target, threshold=0.0, min_kept=40)
    assert torch.equal(ohem.function(logits, target, **common), expected)
    assert LOSSES["ohem"].options["min_kept"] == 100_000


def test_a_row_added_to_the_table_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    row = LossRow(function=lambda *_, scale, **__: scale, reduction="mean", options={"scale": 1.0}, description="Scale")
    monkeypatch.setitem(LOSSES, "constant", row)
    assert resolve_loss("constant", [("scale", 2.5)]).function(None, None, ignore_index=255) == 2.5
    with pytest.raises(UserError, match="did you mean 'constant'"):
        resolve_loss("constan")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("focl", [], f"train.loss must be one of {', '.join(LOSSES)}; got 'focl'; did you mean 'focal'?"),
        ("focal", [("gama", 1.0)], "must be one of gamma; got 'gama'; did you mean 'gamma'?"),
        ("ohem", [("min_kept", 1.5)], "min_kept in train.loss_options must be a whole number, got 1.5"),
        ("ohem", [("min_kept", math.nan)], "min_kept in train.loss_options must be a whole number, got nan"),
        ("cross_entropy", [("gamma", 1.0)], "train.loss_options must be empty for the loss cross_entropy, got 'gamma'"),
    ],
)
def test_unknown_losses_and_options(name: str, options: list[tuple[str, float]], message: str) -> None:
    with pytest.raises(UserError) as error:
        resolve_loss(name, options)
    assert message in str(error.value)
