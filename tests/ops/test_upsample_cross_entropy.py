from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.ops import bilinear
from segformer.ops import upsample_cross_entropy as module
from segformer.ops.upsample_cross_entropy import upsample_cross_entropy, upsample_cross_entropy_reference

Average = Literal["all", "valid", "sum"]


def labels(batch: int, classes: int, height: int, width: int, ignored: float = 0.2) -> Tensor:
    target = torch.randint(0, classes, (batch, height, width))
    target[torch.rand(target.shape) < ignored] = 255
    return target


def loss_and_gradient(function: object, logits: Tensor, *args: object, **options: object) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone().requires_grad_()
    loss = function(logits, *args, **options)  # type: ignore[operator]
    loss.backward()
    assert logits.grad is not None
    return loss.detach(), logits.grad


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles even for small inputs, of sizes that divide nothing."""
    for place in (module, bilinear):
        monkeypatch.setattr(place, "COLUMNS", 13)
    monkeypatch.setattr(module, "TILE", 2 * 7 * 13 * 5)


@pytest.mark.parametrize("average", ["all", "valid", "sum"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [(32, 36), (33, 35), (8, 9), (5, 4), (1, 1), (70, 9)])
def test_equals_reference(average: Average, align_corners: bool, weighted: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    coarse = torch.randn(2, 7, 3, 3, dtype=torch.float64)
    for logits in (torch.randn(2, 7, 8, 9, dtype=torch.float64), F.interpolate(coarse, size=(8, 9), mode="bicubic")):
        options = {"class_weights": torch.rand(7, dtype=torch.float64) if weighted else None, "average": average}
        options |= {"align_corners": align_corners}
        target = labels(2, 7, *size)
        loss, gradient = loss_and_gradient(upsample_cross_entropy, logits, target, **options)
        expected, expected_gradient = loss_and_gradient(upsample_cross_entropy_reference, logits, target, **options)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-13)


def test_averages_against_torch() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 4, 4), labels(2, 5, 16, 16)
    upsampled = F.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    weights = torch.rand(5)
    valid = F.cross_entropy(upsampled, target, ignore_index=255)
    torch.testing.assert_close(upsample_cross_entropy(logits, target), valid)
    weighted = F.cross_entropy(upsampled, target, weight=weights, ignore_index=255)
    torch.testing.assert_close(upsample_cross_entropy(logits, target, class_weights=weights), weighted)
    every = F.cross_entropy(upsampled, target, ignore_index=255, reduction="none").mean()
    torch.testing.assert_close(upsample_cross_entropy(logits, target, average="all"), every)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    target = labels(2, 3, 13, 11)
    weights = torch.rand(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: upsample_cross_entropy(x, target, class_weights=weights), (logits,))


@pytest.mark.parametrize("average", ["all", "valid", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_everything_ignored_is_zero(average: Average, weighted: bool) -> None:
    weights = torch.ones(3) if weighted else None
    target = torch.full((1, 8, 8), 255)
    loss, gradient = loss_and_gradient(
        upsample_cross_entropy, torch.randn(1, 3, 2, 2), target, class_weights=weights, average=average
    )
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_upcast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 6, 6).to(dtype), labels(2, 5, 24, 24)
    loss, gradient = loss_and_gradient(upsample_cross_entropy, logits, target)
    expected, expected_gradient = loss_and_gradient(upsample_cross_entropy, logits.float(), target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, expected_gradient.to(dtype))


def test_labels_of_one_byte_and_another_ignore_index() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 5, 4, 4), labels(1, 5, 16, 16, ignored=0)
    expected = F.cross_entropy(F.interpolate(logits, size=(16, 16), mode="bilinear"), target, ignore_index=2)
    torch.testing.assert_close(upsample_cross_entropy(logits, target.byte(), ignore_index=2), expected)


def test_no_gradient_needed() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 5, 4, 4), labels(1, 5, 16, 16)
    kept = logits.clone()
    expected = upsample_cross_entropy_reference(logits, target)
    torch.testing.assert_close(upsample_cross_entropy(logits, target), expected)
    assert torch.equal(logits, kept)


def test_memory_is_bounded_by_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (module, bilinear):
        monkeypatch.setattr(place, "COLUMNS", 64)
    monkeypatch.setattr(module, "TILE", 150 * 64 * 64)
    logits, target = torch.randn(1, 150, 64, 64, requires_grad=True), labels(1, 150, 256, 256)
    with torch.profiler.profile(profile_memory=True) as profile:
        upsample_cross_entropy(logits, target).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 150 * 256 * 256 * 4 / 4


def test_bad_target() -> None:
    with pytest.raises(ValueError, match="target must be"):
        upsample_cross_entropy(torch.zeros(2, 3, 4, 4), torch.zeros(1, 8, 8, dtype=torch.long))
