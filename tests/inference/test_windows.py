from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segformer.config import Blend, EvalConfig, ModelCard, Preprocessing
from segformer.inference import windows as inference_module
from segformer.inference.windows import (
    View,
    Window,
    blended_rows,
    predict_mask,
    predict_scores,
    predict_with_scores,
    views_of,
    whole_logits,
    window_starts,
    window_weight,
)
from segformer.models.build import build_model, model_config
from segformer.models.interfaces import Decoder, Encoder
from segformer.models.segmenter import Segmenter

NUM_CLASSES = 4
FIT = Preprocessing(long_side=256, short_side=64)
NONE = Preprocessing(resize="none", multiple=1)


class Recorder(Encoder):
    """An encoder that keeps what it is given."""

    channels = (3,)
    strides = (32,)

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        self.seen.append(images.clone())
        return [images]


class Ramp(Decoder):
    """A decoder whose logits depend on the pixels and on the place inside the window, at a quarter of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(NUM_CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0)))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        logits = F.conv2d(F.avg_pool2d(maps[0], 4, ceil_mode=True), self.weight)
        rows = torch.linspace(0, 1, logits.shape[2])[:, None] * torch.arange(NUM_CLASSES)[:, None, None]
        columns = torch.linspace(1, 0, logits.shape[3]) * torch.arange(NUM_CLASSES).flip(0)[:, None, None]
        return logits + rows + columns


def stub(preprocessing: Preprocessing = NONE) -> tuple[Segmenter, list[Tensor]]:
    """Return a model that is cheap and simple, and the list of the batches that it has seen."""
    encoder = Recorder()
    return Segmenter(
        encoder, Ramp(), ModelCard.for_classes(model_config("mit_b0"), NUM_CLASSES, preprocessing)
    ), encoder.seen


def mit(preprocessing: Preprocessing = FIT) -> Segmenter:
    """Return a small real model whose logits vary."""
    torch.manual_seed(0)
    return build_model("mit_b0", num_classes=NUM_CLASSES, preprocessing=preprocessing).eval()


def image(height: int, width: int) -> Tensor:
    """Blobs of color, so that masks have regions and borders."""
    coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(height * 1000 + width)) * 255
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)[0].to(torch.uint8)


def slide_logits(model: Segmenter, pixels: Tensor, config: EvalConfig, scale: float = 1.0) -> Tensor:
    """Averaged logits of a sliding window at the preprocessed size.  -> (1, K, H', W')"""
    (view,) = views_of(model, pixels, replace(config, scales=(scale,), flip=False))
    return blended_rows(view, slice(0, view.size[0]), False)[None]


def softmax(logits: Tensor) -> np.ndarray:
    """(1, K, H, W) -> (K, H, W) float64"""
    values = logits[0].double().numpy()
    values = np.exp(values - values.max(axis=0))
    return values / values.sum(axis=0)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@given(side=st.integers(1, 3000), crop=st.integers(1, 1500), data=st.data())
def test_windows_as_in_the_release(side: int, crop: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, crop))
    starts = window_starts(side, crop, stride)
    assert len(starts) == max(side - crop + stride - 1, 0) // stride + 1
    assert starts[0] == 0
    assert all(start == i * stride for i, start in enumerate(starts[:-1]))
    assert starts[-1] == max(side - crop, 0)  # shifted back inside, and it reaches the end
    assert all(b - a <= crop for a, b in pairwise(starts))  # no gap between two windows
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize(
    ("side", "crop", "stride", "starts"),
    [
        (1024, 1024, 768, [0]),
        (2048, 1024, 768, [0, 768, 1024]),
        (1536, 768, 768, [0, 768]),
        (1025, 1024, 768, [0, 1]),
        (500, 1024, 768, [0]),
    ],
)
def test_windows_of_cityscapes(side: int, crop: int, stride: int, starts: list[int]) -> None:
    assert window_starts(side, crop, stride) == starts


def test_a_window_that_covers_the_image_is_the_whole_image() -> None:
    model, pixels = mit(), image(50, 71)
    for crop in ((64, 96), (100, 200)):
        sliding = predict_scores(model, pixels, EvalConfig(crop=crop))
        logits = F.interpolate(whole_logits(model, pixels), (64, 96), mode="bilinear")
        expected = softmax(F.interpolate(logits, (50, 71), mode="bilinear"))
        np.testing.assert_allclose(sliding.numpy(), expected, atol=1e-5)
    at_own_size, pixels = mit(NONE), image(64, 96)  # without a resize in between the two ways agree completely
    torch.testing.assert_close(
        predict_scores(at_own_size, pixels, EvalConfig(crop=(64, 96))),
        predict_scores(at_own_size, pixels, EvalConfig()),
        rtol=0,
        atol=1e-6,
    )


def test_overlapping_windows_are_averaged() -> None:
    model, seen = stub()
    pixels = image(96, 64)
    logits = slide_logits(model, pixels, EvalConfig(crop=(64, 64), stride=(48, 48)))
    assert [tuple(batch.shape) for batch in seen] == [(1, 3, 64, 64)] * 2
    whole = model.normalize(pixels[None])
    first, second = (F.interpolate(model(whole[:, :, top : top + 64]), (64, 64), mode="bilinear") for top in (0, 32))
    assert (first[:, :, 32:] - second[:, :, :32]).abs().max() > 0.1  # else the mean could not be told from either
    torch.testing.assert_close(logits[:, :, :32], first[:, :, :32])
    torch.testing.assert_close(logits[:, :, 32:64], (first[:, :, 32:] + second[:, :, :32]) / 2)
    torch.testing.assert_close(logits[:, :, 64:], second[:, :, 32:])


def test_windows_overlap_in_both_directions() -> None:
    model, seen = stub()
    logits = slide_logits(model, image(80, 100), EvalConfig(crop=(64, 48)))  # stride: three quarters, 48 and 36
    tops, lefts = [0, 16], [0, 36, 52]
    total, count = torch.zeros(1, NUM_CLASSES, 80, 100), torch.zeros(80, 100)
    whole = model.normalize(image(80, 100)[None])
    assert len(seen) == len(tops) * len(lefts)
    for top in tops:
        for left in lefts:
            part = model(whole[:, :, top : top + 64, left : left + 48])
            total[:, :, top : top + 64, left : left + 48] += F.interpolate(part, (64, 48), mode="bilinear")
            count[top : top + 64, left : left + 48] += 1
    assert count.max() == 4
    torch.testing.assert_close(logits, total / count)


def test_a_stride_beyond_the_crop_would_leave_pixels_without_a_class() -> None:
    with pytest.raises(ValueError, match="stride"):
        predict_scores(stub()[0], image(96, 200), EvalConfig(crop=(64, 64), stride=(64, 80)))


@pytest.mark.parametrize("crop", [None, (64, 64)])
def test_probabilities_of_scales_and_flips_are_averaged(crop: tuple[int, int] | None) -> None:
    model, seen = stub(FIT)
    pixels = image(50, 71)
    config = EvalConfig(scales=(0.5, 1.0, 1.5), flip=True, crop=crop)
    scores = predict_scores(model, pixels, config)
    sizes = [(32, 64), (64, 96), (96, 160)]  # fitted: 32 x 45, 64 x 91, 96 x 136; then up to multiples of 32
    if crop is None:
        assert [tuple(batch.shape[2:]) for batch in seen] == [size for size in sizes for _ in range(2)]
    expected = np.zeros((NUM_CLASSES, 50, 71))
    for scale in config.scales:
        for flipped in (False, True):
            view = torch.from_numpy(pixels.numpy()[:, :, ::-1].copy()) if flipped else pixels
            logits = whole_logits(model, view, scale) if crop is None else slide_logits(model, view, config, scale)
            probabilities = softmax(F.interpolate(logits, (50, 71), mode="bilinear"))
            expected += (probabilities[:, :, ::-1] if flipped else probabilities) / 6
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_with_flip_a_mirrored_image_gives_the_mirrored_scores() -> None:
    model, pixels = mit(), image(50, 71)
    config = EvalConfig(flip=True)
    scores = predict_scores(model, pixels, config)
    torch.testing.assert_close(predict_scores(model, pixels.flip(-1), config), scores.flip(-1), rtol=0, atol=1e-6)
    assert (scores - predict_scores(model, pixels, EvalConfig())).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(50, 71), (33, 200), (131, 57), (1, 40), (64, 64)])
@pytest.mark.parametrize(
    "config",
    [EvalConfig(), EvalConfig(crop=(64, 64)), EvalConfig(scales=(0.75, 1.25), flip=True)],
    ids=["whole", "slide", "multiscale"],
)
def test_mask_is_the_argmax_of_scores_of_any_size(size: tuple[int, int], config: EvalConfig) -> None:
    model, pixels = mit(), image(*size)
    scores = predict_scores(model, pixels, config)
    assert scores.shape == (NUM_CLASSES, *size)
    torch.testing.assert_close(scores.sum(0), torch.ones(size), rtol=0, atol=1e-5)
    mask = predict_mask(model, pixels, config)
    assert mask.shape == size
    assert mask.dtype == torch.int64
    best, second = scores.topk(2, dim=0).values
    assert (mask == scores.argmax(0))[best - second > 1e-5].all()


def test_whole_image_masks_have_more_than_one_class() -> None:
    assert len(predict_mask(mit(), image(50, 71), EvalConfig()).unique()) > 1


@pytest.mark.parametrize("align_corners", [False, True])
def test_logits_are_upsampled_as_the_card_says(align_corners: bool) -> None:
    model, _ = stub()
    model.card = replace(model.card, model=replace(model.card.model, align_corners=align_corners))
    pixels = image(64, 90)
    full = F.interpolate(whole_logits(model, pixels), (64, 90), mode="bilinear", align_corners=align_corners)
    np.testing.assert_allclose(predict_scores(model, pixels, EvalConfig()).numpy(), softmax(full), atol=1e-5)
    mask = predict_mask(model, pixels, EvalConfig())
    assert (mask == full[0].argmax(0)).float().mean() > 0.999


@pytest.mark.parametrize("predict", [predict_mask, predict_scores])
def test_an_image_is_fitted_and_normalized_once(predict: Callable[..., Tensor]) -> None:
    model, seen = stub(FIT)
    pixels = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 50, 71).contiguous()
    predict(model, pixels, EvalConfig())
    (batch,) = seen
    assert batch.shape == (1, 3, 64, 96)  # scale 64 / 50 = 1.28: 64 x 91, then 91 -> 96
    expected = [(200 - 123.675) / 58.395, (100 - 116.28) / 57.12, (50 - 103.53) / 57.375]
    for channel, value in zip(batch[0], expected, strict=True):
        torch.testing.assert_close(channel, torch.full((64, 96), value))


def test_the_second_resize_starts_from_the_first() -> None:
    model, seen = stub(FIT)
    pixels = image(50, 71)
    whole_logits(model, pixels)
    fitted = F.interpolate(pixels[None].float(), (64, 91), mode="bilinear")
    expected = F.interpolate(fitted, (64, 96), mode="bilinear")
    gray_levels = seen[0] * model.std + model.mean
    assert (gray_levels - expected).abs().max() <= 1.5  # both resizes round to whole gray levels


def test_a_model_on_a_crop_larger_than_the_image_sees_the_image_only() -> None:
    model, seen = stub(FIT)
    predict_mask(model, image(50, 71), EvalConfig(crop=(512, 512)))
    assert [tuple(batch.shape) for batch in seen] == [(1, 3, 64, 96)]


@pytest.mark.parametrize("blend", ["uniform", "gaussian", "cosine"])
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    crop=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    data=st.data(),
)
def test_weights_of_overlapping_windows_sum_to_1(
    blend: Blend, size: tuple[int, int], crop: tuple[int, int], data: st.DataObject
) -> None:
    stride = data.draw(st.tuples(*(st.integers(side // 3, side) for side in crop)))
    crop = (min(crop[0], size[0]), min(crop[1], size[1]))
    total = torch.zeros(size)
    places = [
        (slice(top, top + crop[0]), slice(left, left + crop[1]))
        for top in window_starts(size[0], crop[0], stride[0])
        for left in window_starts(size[1], crop[1], stride[1])
    ]
    for place in places:
        total[place] += window_weight(crop, blend)
    assert total.min() > 0
    shares = sum(F.pad(window_weight(crop, blend) / total[place], padding(place, size)) for place in places)
    torch.testing.assert_close(shares, torch.ones(size), rtol=0, atol=1e-5)
    # windows that say the same everywhere are averaged to just that
    logits = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, *(-(-side // 4) for side in crop))
    windows = [Window(rows.start, columns.start, crop, logits) for rows, columns in places]
    blended = blended_rows(View(windows, size, blend), slice(0, size[0]), False)
    torch.testing.assert_close(blended, torch.tensor([3.0, -2.0]).view(2, 1, 1).expand(2, *size), rtol=0, atol=1e-5)


def padding(place: tuple[slice, slice], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What F.pad wants to put a window back into its place."""
    rows, columns = place
    return columns.start, size[1] - columns.stop, rows.start, size[0] - rows.stop


def test_weights_by_hand() -> None:
    assert (window_weight((4, 6), "uniform") == 1).all()
    cosine = window_weight((4, 1), "cosine")[:, 0]
    torch.testing.assert_close(cosine, torch.tensor([0.146447, 0.853553, 0.853553, 0.146447]))  # sin^2 of 22.5 degrees
    gaussian = window_weight((2, 8), "gaussian")[0] / window_weight((2, 8), "gaussian")[0, 3]
    assert gaussian[1] == pytest.approx(np.exp(-0.5 * (2.5**2 - 0.5**2)), rel=1e-5)  # sigma is one pixel of eight


def test_blending_favors_the_middle_of_a_window() -> None:
    model, _ = stub()
    pixels, config = image(96, 64), EvalConfig(crop=(64, 64), stride=(32, 32))
    first, second = (
        F.interpolate(model(model.normalize(pixels[None, :, top : top + 64])), (64, 64), mode="bilinear")[0]
        for top in (0, 32)
    )
    weight = window_weight((64, 64), "gaussian")
    expected = (first[:, 32:] * weight[32:] + second[:, :32] * weight[:32]) / (weight[32:] + weight[:32])
    blended = slide_logits(model, pixels, replace(config, blend="gaussian"))[0]
    torch.testing.assert_close(blended[:, 32:64], expected)
    assert (blended - slide_logits(model, pixels, config)[0]).abs().max() > 0.05


@pytest.mark.parametrize("windows", [2, 3, 100])
def test_windows_go_through_the_model_together(windows: int) -> None:
    model, pixels = mit(NONE), image(100, 230)
    config = EvalConfig(crop=(64, 64), stride=(48, 48))
    together = predict_scores(model, pixels, replace(config, windows=windows))
    torch.testing.assert_close(together, predict_scores(model, pixels, config), rtol=0, atol=1e-5)
    model, seen = stub()
    predict_mask(model, pixels, replace(config, windows=windows))
    row = [min(windows, 5 - k) for k in range(0, 5, windows)]  # five windows a row
    assert [len(batch) for batch in seen] == row * 2


@pytest.mark.parametrize(
    "config",
    [EvalConfig(), EvalConfig(crop=(64, 64)), EvalConfig(scales=(0.75, 1.25), flip=True)],
    ids=["whole", "slide", "multiscale"],
)
def test_scores_at_points_are_those_of_the_mask(config: EvalConfig) -> None:
    model, pixels = mit(), image(50, 71)
    points = torch.randint(0, 50 * 71, (200,), generator=torch.Generator().manual_seed(0))
    mask, scores = predict_with_scores(model, pixels, config, points)
    torch.testing.assert_close(mask, predict_mask(model, pixels, config))
    expected = predict_scores(model, pixels, config).flatten(1)[:, points].T
    torch.testing.assert_close(scores.softmax(dim=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("band", [1, 50, 10_000])
@pytest.mark.parametrize("config", [EvalConfig(crop=(64, 64)), EvalConfig(scales=(0.75, 1.25), flip=True)])
def test_bands_make_no_difference(config: EvalConfig, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = mit(), image(50, 71)
    expected = predict_scores(model, pixels, config)
    monkeypatch.setattr(inference_module, "BAND", band)
    torch.testing.assert_close(predict_scores(model, pixels, config), expected, rtol=0, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            self.elements = max(self.elements, tensor.numel() if isinstance(tensor, Tensor) else 0)
        return made


@pytest.mark.parametrize("config", [EvalConfig(scales=(0.75, 1.25)), EvalConfig(crop=(64, 64))])
def test_full_size_scores_are_never_held(config: EvalConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 classes at 300 x 400 would be 18 million."""
    monkeypatch.setattr(inference_module, "BAND", 1 << 20)
    model = build_model("mit_b0", num_classes=150, preprocessing=Preprocessing(long_side=96, short_side=64)).eval()
    with LargestTensor() as largest:
        predict_mask(model, image(300, 400), config)
    assert 100_000 < largest.elements < 2_000_000


def test_bad_numbers_of_windows() -> None:
    with pytest.raises(ValueError, match=r"eval\.windows must be at least 1"):
        EvalConfig(windows=0)
