import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segformer.ops import upsample_argmax as module
from segformer.ops.upsample_argmax import upsample_argmax, upsample_argmax_reference


def smooth_logits(batch: int, classes: int, height: int, width: int) -> Tensor:
    coarse = torch.randn(batch, classes, max(2, height // 8), max(2, width // 8))
    return F.interpolate(coarse, size=(height, width), mode="bicubic")


def assert_exact(mask: Tensor, logits: Tensor, size: tuple[int, int], align_corners: bool) -> None:
    """Equal to the float64 reference wherever its two best scores differ by more than 1e-6 of the score range."""
    scores = F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=align_corners)
    best = scores.topk(min(2, scores.shape[1]), dim=1)
    spread = (scores.max() - scores.min()).clamp(min=1e-30)
    clear = (best.values[:, 0] - best.values[:, -1]) > 1e-6 * spread
    clear |= torch.tensor(scores.shape[1] == 1)
    assert mask.shape == (logits.shape[0], *size)
    assert mask.dtype == torch.int64
    assert torch.equal(mask[clear], best.indices[:, 0][clear])
    assert clear.float().mean() > 0.99 or logits.shape[1] == 1


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("make", [torch.randn, smooth_logits])
@pytest.mark.parametrize("size", [(64, 96), (61, 97), (16, 24), (7, 5), (1, 1), (17, 200), (300, 24), (32, 1)])
def test_equals_float64_reference(make: object, size: tuple[int, int], align_corners: bool) -> None:
    torch.manual_seed(0)
    logits = make(2, 19, 16, 24)  # type: ignore[operator]
    assert_exact(upsample_argmax(logits, size, align_corners), logits, size, align_corners)


@settings(max_examples=60, deadline=None)
@given(
    source=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    classes=st.integers(1, 9),
    align_corners=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_any_ratio(
    source: tuple[int, int], target: tuple[int, int], classes: int, align_corners: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(1, classes, *source, dtype=torch.float64)
    mask = upsample_argmax(logits, target, align_corners)
    assert torch.equal(mask, upsample_argmax_reference(logits, target, align_corners))


def test_a_third_class_wins_between_four_corners() -> None:
    # Second best at both ends, best in the middle: only interpolated scores can tell.
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.9]]).view(1, 3, 1, 2)
    assert upsample_argmax(logits, (1, 3), align_corners=True).tolist() == [[[0, 2, 1]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_upcast_first(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 5, 8, 8).to(dtype)
    assert torch.equal(upsample_argmax(logits, (32, 32)), upsample_argmax(logits.float(), (32, 32)))


def test_channels_last_and_strided_logits() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 7, 9, 11)
    expected = upsample_argmax(logits, (36, 44))
    assert torch.equal(upsample_argmax(logits.contiguous(memory_format=torch.channels_last), (36, 44)), expected)
    assert torch.equal(upsample_argmax(logits.repeat(1, 1, 2, 1)[:, :, :9], (36, 44)), expected)


def test_memory_does_not_grow_with_classes_times_pixels() -> None:
    logits = smooth_logits(1, 150, 64, 64).contiguous()
    with torch.profiler.profile(profile_memory=True) as profile:
        upsample_argmax(logits, (512, 512))
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 150 * 512 * 512 * 4 / 4


@pytest.mark.parametrize("size", [(0, 8), (8, -1), (8,)])
def test_bad_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="size must be"):
        upsample_argmax(torch.zeros(1, 2, 4, 4), size)


def test_bad_logits() -> None:
    with pytest.raises(ValueError, match="logits must be"):
        upsample_argmax(torch.zeros(2, 4, 4), (8, 8))


@pytest.mark.parametrize("candidates", [1, 2, 3, 8])
@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_no_class_that_wins_is_left_out(candidates: int, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few candidates, and many classes that could win: some cells need all of them."""
    monkeypatch.setattr(module, "CANDIDATES", candidates)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 40, 5, 6, generator=generator, dtype=torch.float64)
    logits = F.interpolate(coarse, (20, 24), mode="bilinear")
    logits += spread * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    for size in ((80, 96), (61, 130), (15, 30)):
        assert torch.equal(upsample_argmax(logits, size), upsample_argmax_reference(logits, size))


def test_of_equal_scores_the_first_class_wins() -> None:
    logits = torch.zeros(1, 20, 6, 6)
    logits[:, 3::5] = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))  # four classes, always equal
    logits[:, 1, :3] = 2.0
    assert set(upsample_argmax(logits, (24, 24)).unique().tolist()) == {1, 3}
