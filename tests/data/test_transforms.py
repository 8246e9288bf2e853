import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T  # the field's name for it

from segformer.config import IGNORE_INDEX, IMAGENET_MEAN, IMAGENET_STD, DataConfig, Preprocessing
from segformer.data import transforms
from segformer.data.transforms import (
    BAND,
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    SegmentationTransform,
    fitted_size,
    largest_share,
    normalize_and_pad,
    pad,
    photometric_distortion,
    preprocess,
    random_crop,
    random_resize,
    random_window,
    rare_crop,
    raw_distortion,
    resize_image,
    resize_mask,
    shift_saturation_and_hue,
    sizes_at_test,
    stack,
    uniform,
)

SIZES = [((48, 64), (31, 97)), ((64, 48), (128, 96)), ((33, 50), (11, 17)), ((7, 5), (40, 90)), ((40, 40), (1, 3))]
RESIZES = [pytest.param(*pair, id=f"{pair[0]}-{pair[1]}") for pair in SIZES]


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def noise(size: tuple[int, int], channels: int = 3, seed: int = 0) -> Tensor:
    """(C, H, W) uint8"""
    return torch.randint(0, 256, (channels, *size), generator=generator(seed), dtype=torch.uint8)


def labels(size: tuple[int, int], num_classes: int = 4, seed: int = 0) -> Tensor:
    return torch.randint(0, num_classes, size, generator=generator(seed), dtype=torch.uint8)


def coordinates(size: tuple[int, int]) -> Tensor:
    """(2, H, W) int64: row and column of each pixel."""
    return torch.stack(torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij"))


def opencv_resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    cv2 = pytest.importorskip("cv2")
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1)


def difference(first: Tensor, second: Tensor) -> int:
    return int((first.int() - second.int()).abs().max())


@pytest.mark.parametrize(("size", "new_size"), RESIZES)
def test_images_resize_as_with_opencv(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    resized = resize_image(noise(size), new_size)
    assert resized.dtype == torch.uint8
    assert resized.shape == (3, *new_size)
    assert difference(resized, opencv_resize(noise(size), new_size)) <= 1


def test_antialiasing_is_off_unless_asked_for() -> None:
    image = noise((96, 96))
    assert difference(resize_image(image, (24, 24)), opencv_resize(image, (24, 24))) <= 1
    averaged = resize_image(image, (24, 24), antialias=True).float()
    assert averaged.std() < 0.6 * resize_image(image, (24, 24)).float().std()


@pytest.mark.parametrize(("size", "new_size"), RESIZES)
def test_masks_take_the_nearest_label(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    mask = labels(size, num_classes=255)
    rows = [int(row * size[0] / new_size[0]) for row in range(new_size[0])]
    columns = [int(column * size[1] / new_size[1]) for column in range(new_size[1])]
    assert torch.equal(resize_mask(mask, new_size), mask[rows][:, columns])


@pytest.mark.parametrize("saturation", [0.5, 0.8, 1.0, 1.5])
@pytest.mark.parametrize("hue", [-0.1, -0.03, 0.0, 0.1])
def test_saturation_and_hue_shift_as_in_opencvs_hsv(saturation: float, hue: float) -> None:
    cv2 = pytest.importorskip("cv2")
    image = noise((40, 50))
    image[:, 0], image[:, 1], image[:, 2] = 0, 255, torch.arange(50)  # grays
    image[0, 3], image[1, 4], image[2, 5] = 255, 255, 255
    pixels = image.permute(1, 2, 0).numpy().astype(np.float32) / 255
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)  # H 0-360, S and V 0-1
    hsv[..., 0] = (hsv[..., 0] + 360 * hue) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).transpose(2, 0, 1) * 255
    shifted = shift_saturation_and_hue(image.float(), saturation, hue)
    np.testing.assert_allclose(shifted.numpy(), expected, atol=0.05)


def test_hue_by_hand() -> None:
    red = torch.tensor([200.0, 0.0, 0.0]).view(3, 1, 1)
    assert shift_saturation_and_hue(red, 1.0, 1 / 6).flatten().tolist() == pytest.approx([200, 200, 0], abs=1e-3)
    assert shift_saturation_and_hue(red, 1.0, -1 / 12).flatten().tolist() == pytest.approx([200, 0, 100], abs=1e-3)
    assert shift_saturation_and_hue(red, 0.5, 1 / 3).flatten().tolist() == pytest.approx([100, 200, 100], abs=1e-3)


GREYS = torch.arange(40, 130, dtype=torch.uint8)
PALE, MIDDLE, BRIGHT = (200, 100, 100), (130, 75, 75), (250, 125, 125)
NUM_DRAWS = 4000


def distort(seed: int) -> tuple[float, float, Tensor]:
    """Contrast and brightness as the grays show them, and the three colors (3, 3) after one distortion."""
    image = torch.cat([GREYS.expand(3, -1), torch.tensor([PALE, MIDDLE, BRIGHT], dtype=torch.uint8).T], dim=1)[:, None]
    distorted = photometric_distortion(image, generator(seed))[:, 0].float()
    grays, colors = distorted[:, :-3], distorted[:, -3:].T
    assert torch.equal(grays[0], grays[1])
    assert torch.equal(grays[0], grays[2])
    valid = grays[0] < 255
    contrast, offset = np.polyfit(GREYS[valid].numpy(), grays[0][valid].numpy(), 1)
    return float(contrast), float(offset / contrast), colors


@cache
def distortions() -> list[tuple[float, float, Tensor]]:
    return [distort(seed) for seed in range(NUM_DRAWS)]


def test_grays_only_get_brightness_and_contrast() -> None:
    for contrast, brightness, _ in distortions():
        assert 0.49 < contrast < 1.51
        assert -32.5 < brightness < 32.5
    for seed in range(50):
        contrast, brightness, _ = distortions()[seed]
        ramp = torch.arange(256, dtype=torch.uint8).expand(3, 1, -1)
        distorted = photometric_distortion(ramp, generator(seed))[0, 0].float()
        expected = ((torch.arange(256) + brightness).clamp(0, 255) * contrast).clamp(0, 255)
        assert (distorted - expected).abs().max() < 2  # two roundings, and the error of the fit


def test_brightness_and_contrast_are_drawn_uniformly_every_second_time() -> None:
    contrasts, brightnesses, _ = zip(*distortions(), strict=True)
    for values, middle, reach, blur in ((contrasts, 1.0, 0.5, 0.01), (brightnesses, 0.0, 32.0, 0.6)):
        shifts = (np.array(values) - middle) / reach
        changed = shifts[np.abs(shifts) > blur / reach]
        assert 0.45 < len(changed) / NUM_DRAWS < 0.52
        assert changed.min() < -0.97
        assert changed.max() > 0.97
        assert abs(changed.mean()) < 0.05
        assert np.quantile(np.abs(changed), 0.5) == pytest.approx(0.5, abs=0.05)


def test_saturation_and_hue_are_drawn_uniformly_every_second_time() -> None:
    alone = [colors[0] for *shift, colors in distortions() if shift == pytest.approx([1, 0])]
    assert 0.21 < len(alone) / NUM_DRAWS < 0.29
    red, green, blue = torch.stack(alone).numpy().T
    assert (np.abs(red - 200) <= 1).all()  # the value stays; a contrast of 1.004 is not seen in the grays
    chroma = red - np.minimum(green, blue)
    saturations, degrees = chroma / 100, 60 * (green - blue) / chroma
    for values, middle, reach, blur in ((saturations, 1.0, 0.5, 0.001), (degrees, 0.0, 36.0, 0.1)):
        shifts = (values - middle) / reach
        changed = shifts[np.abs(shifts) > blur / reach]
        assert 0.43 < len(changed) / len(alone) < 0.56
        assert -1.04 < changed.min() < -0.95
        assert 1.04 > changed.max() > 0.95
        assert abs(changed.mean()) < 0.09
        assert np.quantile(np.abs(changed), 0.5) == pytest.approx(0.5, abs=0.09)
    both = (np.abs(saturations - 1) > 0.001) & (np.abs(degrees) > 0.1)
    assert 0.2 < both.mean() < 0.3  # each for itself


def test_contrast_comes_before_or_after_the_saturation_at_random() -> None:
    def contrast_after(brightness: float, contrast: float, saturation: float) -> float:
        high, low = min(BRIGHT[0] + brightness, 255), BRIGHT[1] + brightness
        return (high - (high - low) * saturation) * contrast

    def contrast_before(brightness: float, contrast: float, saturation: float) -> float:
        high, low = min(BRIGHT[0] + brightness, 255), BRIGHT[1] + brightness
        high, low = min(high * contrast, 255), low * contrast
        return high - (high - low) * saturation

    before, after = 0, 0
    for contrast, brightness, (_, middle, bright) in distortions():
        saturation = float((middle.max() - middle.min()) / (contrast * (MIDDLE[0] - MIDDLE[1])))
        expected = [order(brightness, contrast, saturation) for order in (contrast_before, contrast_after)]
        if contrast < 1.25 or max(expected) > 250 or abs(expected[0] - expected[1]) < 12:
            continue
        errors = [abs(float(bright.min()) - value) for value in expected]
        assert min(errors) < 6
        before, after = before + (errors[0] < errors[1]), after + (errors[1] < errors[0])
    assert before + after > 60
    assert 0.35 < before / (before + after) < 0.65


@pytest.mark.parametrize("channels", [1, 4])
def test_other_than_three_channels_get_brightness_and_contrast(channels: int) -> None:
    image = noise((8, 8), channels)
    distorted = [photometric_distortion(image, generator(seed)) for seed in range(20)]
    assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in distorted)
    assert any(not torch.equal(one, image) for one in distorted)


def test_the_image_given_is_not_changed() -> None:
    image, mask = noise((40, 50)), labels((40, 50))
    for seed in range(10):
        SegmentationTransform(DataConfig(resize=(50, 40), ratio=(1, 1), crop=(40, 50)), Preprocessing())(
            image, mask, generator(seed)
        )
    assert torch.equal(image, noise((40, 50)))
    assert torch.equal(mask, labels((40, 50)))


def test_the_resize_ratio_is_drawn_uniformly_and_the_aspect_kept() -> None:
    ratios = []
    for seed in range(600):
        image, mask = random_resize(noise((60, 80)), labels((60, 80)), (80, 60), (0.5, 2.0), generator(seed))
        assert image.shape[-2:] == mask.shape
        assert abs(mask.shape[0] / mask.shape[1] - 0.75) < 0.02
        ratios.append(mask.shape[1] / 80)
    assert 0.49 < min(ratios) < 0.52
    assert 1.97 < max(ratios) < 2.01
    assert np.mean(ratios) == pytest.approx(1.25, abs=0.06)
    assert np.median(ratios) == pytest.approx(1.25, abs=0.1)


def test_a_fixed_resize_ratio_fits_the_long_or_the_short_side() -> None:
    def resized(size: tuple[int, int]) -> tuple[int, ...]:
        image, _ = random_resize(noise(size), labels(size), (200, 50), (2.0, 2.0), generator())
        return tuple(image.shape[-2:])

    assert resized((30, 40)) == (100, 133)  # the short side to 100
    assert resized((10, 80)) == (50, 400)  # the long side to 400


def scripted(windows: list[tuple[slice, slice]], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[slice, slice]]:
    """Let random_crop try these windows, and return those that it has not tried."""
    left = iter(windows)
    monkeypatch.setattr(transforms, "random_window", lambda *_: next(left))
    return left


def columns(*starts: int) -> list[tuple[slice, slice]]:
    return [(slice(0, 4), slice(start, start + 4)) for start in starts]


SEGMENTS = {  # 4 x 4 windows, one after the other
    "one class": [1] * 16,
    "all ignored": [255] * 16,
    "one class and ignored": [1] * 4 + [255] * 12,
    "13 of 16": [0] * 13 + [1] * 3,
    "4 of 5 labeled": [255] * 11 + [0] * 4 + [1],
    "12 of 16": [0] * 12 + [1] * 4,
    "3 of 4 labeled": [255] * 12 + [0] * 3 + [1],
    "3 of 6 labeled": [255] * 10 + [0] * 3 + [1] * 3,
}
SEGMENT_NAMES = list(SEGMENTS)
SEGMENT_MASK = torch.tensor(list(SEGMENTS.values()), dtype=torch.uint8).view(-1, 4, 4).transpose(0, 1).reshape(4, -1)


@pytest.mark.parametrize(
    ("name", "retried"), [*zip(SEGMENTS, [True, True, True, True, True, False, False, False], strict=True)]
)
def test_a_crop_of_one_class_is_tried_again(name: str, retried: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    start, good = 4 * SEGMENT_NAMES.index(name), 4 * SEGMENT_NAMES.index("3 of 6 labeled")
    left = scripted(columns(start, good), monkeypatch)
    image = coordinates((4, SEGMENT_MASK.shape[1])).to(torch.uint8)
    crop, mask = random_crop(image, SEGMENT_MASK, (4, 4), 0.75, generator())
    expected = good if retried else start
    assert crop[1, 0].tolist() == list(range(expected, expected + 4))
    assert torch.equal(mask, SEGMENT_MASK[:, expected : expected + 4])
    assert len(list(left)) == (0 if retried else 1)


def test_after_ten_tries_the_last_crop_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.zeros(4, 40, dtype=torch.uint8)
    left = scripted(columns(*range(20)), monkeypatch)
    crop, _ = random_crop(coordinates((4, 40)), mask, (4, 4), 0.75, generator())
    assert crop[1, 0, 0] == 9
    assert len(list(left)) == 10


def test_a_share_of_one_turns_the_tries_off(monkeypatch: pytest.MonkeyPatch) -> None:
    left = scripted(columns(0, 1, 2), monkeypatch)
    random_crop(coordinates((4, 40)), torch.zeros(4, 40, dtype=torch.uint8), (4, 4), 1.0, generator())
    assert len(list(left)) == 2


def test_trying_again_finds_rare_crops() -> None:
    mask = torch.zeros(8, 80, dtype=torch.uint8)
    mask[:, 40:44] = 1  # a window of 8 x 8 holds two or more of these columns at 9 of its 73 places
    image = coordinates((8, 80))

    def share_of_good(max_class_share: float) -> float:
        crops = (random_crop(image, mask, (8, 8), max_class_share, generator(seed))[1] for seed in range(1000))
        return sum(int((crop == 1).sum()) >= 16 for crop in crops) / 1000

    assert share_of_good(1.0) == pytest.approx(9 / 73, abs=0.04)
    assert share_of_good(0.75) == pytest.approx(1 - (1 - 9 / 73) ** 10, abs=0.05)


@pytest.mark.parametrize(
    ("ids", "share"),
    [
        ([0, 0, 1, 255], 2 / 3),
        ([254, 254, 254, 0], 0.75),
        ([3, 3, 3, 3], 1.0),
        ([255] * 4, 1.0),
        ([2, 255, 255, 255], 1.0),
    ],
)
def test_the_largest_share_is_of_labeled_pixels(ids: list[int], share: float) -> None:
    assert largest_share(torch.tensor(ids, dtype=torch.uint8).view(2, 2)) == pytest.approx(share)


def test_windows_lie_uniformly_inside() -> None:
    drawn = [random_window((12, 10), (8, 8), generator(seed)) for seed in range(3000)]
    assert all(rows.stop - rows.start == cols.stop - cols.start == 8 for rows, cols in drawn)
    for starts, places in (([rows.start for rows, _ in drawn], 5), ([cols.start for _, cols in drawn], 3)):
        counts = np.bincount(starts, minlength=places)
        assert len(counts) == places
        assert np.abs(counts / 3000 * places - 1).max() < 0.15


def test_a_crop_takes_the_whole_of_a_smaller_side() -> None:
    image = coordinates((5, 30))
    crop, mask = random_crop(image, labels((5, 30)), (8, 8), 0.75, generator())
    assert crop.shape == (2, 5, 8)
    assert mask.shape == (5, 8)
    assert torch.equal(labels((5, 30))[crop[0], crop[1]], mask)


def test_padding_is_at_the_bottom_and_on_the_right() -> None:
    padded = pad(torch.ones(2, 3), (4, 5), 7.0)
    assert padded.tolist() == [[1, 1, 1, 7, 7], [1, 1, 1, 7, 7], [7] * 5, [7] * 5]
    assert torch.equal(pad(torch.ones(3, 4, 5), (4, 5), 7.0), torch.ones(3, 4, 5))


def plain(size: tuple[int, int], **changes: Any) -> SegmentationTransform:
    """A transform that leaves images of this size alone but for what is changed."""
    options = {"resize": (max(size), min(size)), "ratio": (1.0, 1.0), "crop": size, "flip": 0.0, "photometric": False}
    return SegmentationTransform(DataConfig(**(options | changes)), Preprocessing())


def normalized(image: Tensor) -> NDArray[np.float64]:
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image.numpy().astype(np.float64) - mean) / std


def test_images_are_normalized() -> None:
    image, mask = noise((20, 30)), labels((20, 30))
    output, target = plain((20, 30))(image, mask, generator())
    assert output.dtype == torch.float32
    assert target.dtype == torch.uint8
    np.testing.assert_allclose(output.numpy(), normalized(image), atol=1e-5)
    assert torch.equal(target, mask)


def test_the_flip_mirrors_image_and_mask_together() -> None:
    image, mask = noise((20, 30)), labels((20, 30))
    output, target = plain((20, 30), flip=1.0)(image, mask, generator())
    np.testing.assert_allclose(output.numpy(), normalized(image)[:, :, ::-1], atol=1e-5)
    assert torch.equal(target, mask.flip(1))


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_the_flip_has_its_probability(probability: float) -> None:
    image, mask = noise((4, 6)), labels((4, 6))
    transform = plain((4, 6), flip=probability)
    flipped = [torch.equal(transform(image, mask, generator(seed))[1], mask.flip(1)) for seed in range(1000)]
    assert np.mean(flipped) == pytest.approx(probability, abs=0.05 if 0 < probability < 1 else 0)


def test_image_and_mask_stay_aligned() -> None:
    mask = labels((12, 16), num_classes=5).repeat_interleave(10, 0).repeat_interleave(10, 1)
    image = (mask * 50).expand(3, -1, -1).contiguous()
    transform = SegmentationTransform(DataConfig(resize=(160, 120), crop=(96, 96), photometric=False), Preprocessing())
    agreeing = []
    for seed in range(20):
        output, target = transform(image, mask, generator(seed))
        levels = output[0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
        valid = target != 255
        agreeing.append((levels[valid] / 50 - target[valid]).abs().lt(0.1).float().mean().item())
    assert min(agreeing) > 0.7  # all but the seams between squares, which the image blends


def test_padding_comes_last() -> None:
    size, crop = (20, 30), (64, 72)
    transform = SegmentationTransform(DataConfig(resize=(30, 20), ratio=(1.0, 2.0), crop=crop), Preprocessing())
    heights = set()
    for seed in range(60):
        output, target = transform(noise(size), labels(size), generator(seed))
        inside = target != 255
        height, width = int(inside[:, 0].sum()), int(inside[0].sum())
        heights.add(height)
        expected = torch.zeros(crop, dtype=torch.bool)
        expected[:height, :width] = True
        assert torch.equal(inside, expected)
        assert (output[:, ~inside] == 0).all()  # exactly: neither normalized nor distorted
        assert (output[:, inside] != 0).float().mean() > 0.99
    assert min(heights) < 25
    assert max(heights) > 35


def test_values_stay_those_of_an_8_bit_image() -> None:
    transform = plain((20, 30), photometric=True)
    for seed in range(20):
        output, _ = transform(noise((20, 30)), labels((20, 30)), generator(seed))
        levels = output * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        assert (levels - levels.round()).abs().max() < 1e-3
        assert levels.min() > -0.5
        assert levels.max() < 255.5


def test_all_randomness_is_the_generators() -> None:
    transform = SegmentationTransform(DataConfig(resize=(60, 40), crop=(32, 32)), Preprocessing())
    outputs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        outputs.append(transform(noise((40, 60)), labels((40, 60)), generator(5)))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])
    assert not torch.equal(transform(noise((40, 60)), labels((40, 60)), generator(6))[0], outputs[0][0])


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_a_training_sample_always_has_the_size_of_the_crop(height: int, width: int, seed: int) -> None:
    transform = SegmentationTransform(DataConfig(resize=(160, 64), crop=(48, 56)), Preprocessing())
    output, target = transform(noise((height, width)), labels((height, width)), generator(seed))
    assert output.shape == (3, 48, 56)
    assert target.shape == (48, 56)
    assert output.isfinite().all()
    assert set(target.unique().tolist()) <= {0, 1, 2, 3, 255}
    assert target[0, 0] != 255


@pytest.mark.parametrize(
    ("size", "long_side", "short_side", "expected"),
    [
        ((683, 512), 2048, 512, (683, 512)),
        ((512, 683), 2048, 512, (512, 683)),
        ((480, 640), 2048, 512, (512, 683)),  # 640 * 512 / 480 = 682.7
        ((300, 3000), 2048, 512, (205, 2048)),  # 300 * 2048 / 3000 = 204.8
        ((3000, 300), 2048, 512, (2048, 205)),
        ((256, 1024), 2048, 512, (512, 2048)),  # both sides at once
        ((1024, 2048), 2048, 1024, (1024, 2048)),
        ((100, 100), 2048, 640, (640, 640)),
        ((1, 5000), 2048, 512, (1, 2048)),  # never 0
        ((1, 1), 2048, 512, (512, 512)),
        ((480, 640), 1024.0, 256.0, (256, 341)),
    ],
)
def test_fitted_size_by_hand(
    size: tuple[int, int], long_side: float, short_side: float, expected: tuple[int, int]
) -> None:
    assert fitted_size(size, long_side, short_side) == expected


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_a_fitted_size_touches_one_bound_and_exceeds_none(height: int, width: int) -> None:
    fitted = fitted_size((height, width), 2048, 512)
    assert min(fitted) >= 1
    assert max(fitted) <= 2048
    assert min(fitted) <= 512
    assert max(fitted) == 2048 or min(fitted) == 512


SQUASH = Preprocessing(resize="squash", long_side=2048, short_side=1024)
NONE = Preprocessing(resize="none")


@pytest.mark.parametrize(
    ("preprocessing", "size", "scale", "expected"),
    [
        (Preprocessing(), (683, 512), 1.0, [(683, 512), (704, 512)]),
        (Preprocessing(), (512, 683), 1.0, [(512, 683), (512, 704)]),
        (Preprocessing(), (300, 3000), 1.0, [(205, 2048), (224, 2048)]),
        (Preprocessing(), (512, 512), 1.0, [(512, 512), (512, 512)]),
        (Preprocessing(), (480, 640), 0.75, [(384, 512), (384, 512)]),
        (Preprocessing(), (480, 640), 1.25, [(640, 853), (640, 864)]),
        (Preprocessing(short_side=640), (480, 640), 1.0, [(640, 853), (640, 864)]),
        (Preprocessing(multiple=1), (683, 512), 1.0, [(683, 512), (683, 512)]),
        (Preprocessing(multiple=100), (683, 512), 1.0, [(683, 512), (700, 600)]),
        (SQUASH, (683, 512), 1.0, [(1024, 2048), (1024, 2048)]),
        (SQUASH, (10, 20), 0.5, [(512, 1024), (512, 1024)]),
        (NONE, (100, 70), 1.0, [(100, 70), (128, 96)]),
        (NONE, (101, 70), 0.5, [(51, 35), (64, 64)]),
        (NONE, (64, 96), 2.0, [(128, 192), (128, 192)]),
    ],
)
def test_sizes_at_test_by_hand(
    preprocessing: Preprocessing, size: tuple[int, int], scale: float, expected: list[tuple[int, int]]
) -> None:
    assert sizes_at_test(size, preprocessing, scale) == expected


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    resize=st.sampled_from(["fit", "squash", "none"]),
    scale=st.sampled_from([0.5, 0.75, 1.0, 1.75]),
)
def test_inputs_are_multiples_of_32_and_never_empty(height: int, width: int, resize: Any, scale: float) -> None:
    first, last = sizes_at_test((height, width), Preprocessing(resize=resize), scale)
    for before, after in zip(first, last, strict=True):
        assert after % 32 == 0
        assert after > 0
        assert 0 <= after - before < 32


def test_preprocessing_resizes_twice() -> None:
    image = noise((150, 200))
    preprocessed = preprocess(image, Preprocessing(long_side=400, short_side=100))
    assert preprocessed.dtype == torch.uint8
    assert preprocessed.shape == (3, 128, 160)
    expected = opencv_resize(opencv_resize(image, (100, 133)), (128, 160))
    assert difference(preprocessed, expected) <= 2
    assert difference(preprocessed, opencv_resize(image, (128, 160))) > 20  # which is another image


def test_preprocessing_scales_for_multi_scale_tests() -> None:
    image = noise((150, 200))
    preprocessed = preprocess(image, Preprocessing(long_side=400, short_side=100), 0.64)
    assert preprocessed.shape == (3, 64, 96)  # by way of (64, 85)
    assert difference(preprocessed, opencv_resize(opencv_resize(image, (64, 85)), (64, 96))) <= 2


def test_preprocessing_averages_only_if_asked() -> None:
    image = noise((256, 256))
    options = {"resize": "squash", "long_side": 64, "short_side": 64}
    plain, averaged = (preprocess(image, Preprocessing(**options, antialias=on)) for on in (False, True))
    assert difference(plain, opencv_resize(image, (64, 64))) <= 1
    assert averaged.float().std() < 0.6 * plain.float().std()


def test_preprocessing_leaves_a_fitting_image_alone() -> None:
    image = noise((64, 96))
    assert torch.equal(preprocess(image, NONE), image)
    assert torch.equal(preprocess(image, Preprocessing(long_side=96, short_side=64)), image)


def test_a_stack_is_channels_last() -> None:
    samples = [(torch.rand(3, 8, 6), labels((8, 6), seed=seed)) for seed in range(4)]
    images, masks = stack(samples)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for index, (image, mask) in enumerate(samples):
        assert torch.equal(images[index], image)
        assert torch.equal(masks[index], mask)


def test_a_rare_crop_holds_each_class_as_often() -> None:
    mask = torch.zeros(60, 80, dtype=torch.uint8)
    mask[50, 70], mask[:2] = 7, IGNORE_INDEX
    image = mask[None].repeat(3, 1, 1)
    windows = [rare_crop(image, mask, (20, 30), generator(seed)) for seed in range(400)]
    assert all(cut.shape == (20, 30) and torch.equal(part[0], cut) for part, cut in windows)
    found = sum(bool((cut == 7).any()) for _, cut in windows) / 400
    by_chance = (
        sum(bool((random_crop(image, mask, (20, 30), 1.0, generator(s))[1] == 7).any()) for s in range(400)) / 400
    )
    assert found == pytest.approx(0.5 + 0.5 * by_chance, abs=0.08)
    places = {int((cut == 7).flatten().nonzero()[0]) for _, cut in windows if (cut == 7).any()}
    assert len(places) > 60  # anywhere in the crop, not in its middle


def test_a_rare_crop_of_small_and_of_unlabeled_images() -> None:
    for size in ((10, 12), (10, 60), (60, 12)):
        mask = torch.randint(3, size, dtype=torch.uint8)
        _, cut = rare_crop(mask[None], mask, (20, 30), generator(1))
        assert cut.shape == (min(size[0], 20), min(size[1], 30))
    mask = torch.full((40, 50), IGNORE_INDEX, dtype=torch.uint8)
    assert rare_crop(mask[None], mask, (20, 30), generator(1))[1].shape == (20, 30)


def test_the_share_of_rare_crops() -> None:
    mask = torch.zeros(200, 300, dtype=torch.uint8)
    mask[100:102, 100:102] = 1
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    data = DataConfig(resize=(300, 200), ratio=(1.0, 1.0), crop=(16, 16), max_class_share=1.0, rare_crop=0.4)
    transform = SegmentationTransform(data, Preprocessing())
    found = sum(bool((transform(image, mask, generator(seed))[1] == 1).any()) for seed in range(500)) / 500
    assert found == pytest.approx(0.4 * 0.5, abs=0.05)


def test_raw_channels_are_shifted_and_scaled_in_their_own_units() -> None:
    image = torch.randn(5, 8, 9) * 1000 + 5000
    std = torch.tensor([500.0, 1000.0, 2000.0, 1.0, 0.1]).view(-1, 1, 1)
    shifts, factors = [], []
    for seed in range(300):
        out = raw_distortion(image, std, generator(seed))
        factor = (out[0, 0, 1] - out[0, 0, 0]) / (image[0, 0, 1] - image[0, 0, 0])
        shift = (out / factor - image) / std
        assert torch.allclose(shift[:3], shift[0, 0, 0].expand(3, 8, 9), atol=0.01)
        shifts.append(float(shift[0, 0, 0]))
        factors.append(float(factor))
    limit = 32 / 57.4
    assert -limit <= min(shifts) < -0.9 * limit
    assert 0.9 * limit < max(shifts) <= limit + 0.01
    assert 0.5 <= min(factors) < 0.55
    assert 1.45 < max(factors) <= 1.5001
    assert sum(abs(s) < 0.005 for s in shifts) / 300 == pytest.approx(0.5, abs=0.1)


def test_a_reduced_image_meets_its_full_mask() -> None:
    mask = torch.randint(4, (400, 600), dtype=torch.uint8)
    image = torch.randint(256, (3, 100, 150), dtype=torch.uint8)
    small, label = random_resize(image, mask, (75, 50), (1.0, 1.0), generator(0))
    assert small.shape == (3, 50, 75)
    assert torch.equal(label, resize_mask(mask, (50, 75)))


# What the fast transforms must give, bit for bit: each step on whole images, in new memory, as the formulas read.


def plain_distortion(image: Tensor, generator: Generator) -> Tensor:
    def to_8_bits(pixels: Tensor) -> Tensor:
        return pixels.clamp(0, 255).round()

    pixels = image.float()
    if uniform(generator) < 0.5:
        pixels = to_8_bits(pixels + uniform(generator, -BRIGHTNESS, BRIGHTNESS))
    contrast_first = uniform(generator) < 0.5
    contrast = uniform(generator, *CONTRAST) if uniform(generator) < 0.5 else 1.0
    saturation = uniform(generator, *SATURATION) if uniform(generator) < 0.5 else 1.0
    hue = uniform(generator, -HUE, HUE) if uniform(generator) < 0.5 else 0.0
    if contrast_first:
        pixels = to_8_bits(pixels * contrast)
    if image.shape[0] == 3 and (saturation != 1.0 or hue != 0.0):
        pixels = to_8_bits(plain_saturation_and_hue(pixels, saturation, hue))
    if not contrast_first:
        pixels = to_8_bits(pixels * contrast)
    return pixels.to(torch.uint8)


def plain_saturation_and_hue(pixels: Tensor, saturation: float, hue: float) -> Tensor:
    red, green, blue = pixels
    value, low = pixels.amax(0), pixels.amin(0)
    chroma = value - low
    safe = chroma.clamp(min=1e-6)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    chroma = torch.minimum(chroma * saturation, value)
    sector = sector + 6 * hue
    position = (sector + torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)) % 6
    return value - chroma * torch.minimum(position, 4 - position).clamp(0, 1)


def plain_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    return T.resize(mask[None], list(size), InterpolationMode.NEAREST)[0]


def plain_sample(
    transform: SegmentationTransform, image: Tensor, mask: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    data, image = transform.data, image.contiguous()
    factor = uniform(generator, *data.ratio)
    size = fitted_size((mask.shape[0], mask.shape[1]), data.resize[0] * factor, data.resize[1] * factor)
    image, mask = resize_image(image, size), plain_mask(mask, size)
    if data.rare_crop and uniform(generator) < data.rare_crop:
        image, mask = rare_crop(image, mask, data.crop, generator)
    else:
        image, mask = random_crop(image, mask, data.crop, data.max_class_share, generator)
    if uniform(generator) < data.flip:
        image, mask = image.flip(-1), mask.flip(-1)
    if data.photometric:
        rgb = transform.pixels == "rgb"
        image = plain_distortion(image, generator) if rgb else raw_distortion(image, transform.std, generator)
    normalized = (image.float() - transform.mean) / transform.std
    return pad(normalized, data.crop, 0.0), pad(mask, data.crop, IGNORE_INDEX)


def picture(kind: str, size: tuple[int, int], seed: int = 0) -> Tensor:
    """(3, H, W) uint8 of colors that are hard in one way or another."""
    image = noise(size, seed=seed)
    if kind == "near gray":
        shifts = torch.randint(-3, 4, image.shape, generator=generator(seed))
        return (image[:1] + shifts).clamp(0, 255).to(torch.uint8)
    if kind == "saturated":
        return image // 128 * 255
    if kind == "few levels":  # with ties between the channels
        return image // 64 * 85
    return image


KINDS = ("noise", "near gray", "saturated", "few levels")
SIDES = {"odd": (37, 53), "a row": (1, 301), "a column": (301, 1), "a pixel": (1, 1), "three bands": (401, 409)}


@pytest.mark.parametrize("size", SIDES.values(), ids=SIDES.keys())
@pytest.mark.parametrize("kind", KINDS)
def test_the_distortion_is_the_plain_one_bit_for_bit(kind: str, size: tuple[int, int]) -> None:
    for seed in range(16 if max(size) > 400 else 60):
        image = picture(kind, size, seed)
        drawn, expected_drawn = generator(seed), generator(seed)
        distorted = photometric_distortion(image, drawn)
        assert torch.equal(distorted, plain_distortion(image, expected_drawn))
        assert torch.equal(drawn.get_state(), expected_drawn.get_state())  # as many numbers, in the same order
        assert torch.equal(image, picture(kind, size, seed))


def test_bands_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * BAND < 401 * 409 < 3 * BAND
    wide = picture("noise", (2, BAND + 1))  # a row is more than a band
    assert torch.equal(photometric_distortion(wide, generator(3)), plain_distortion(wide, generator(3)))
    image, mean, std = picture("noise", (23, 17)), torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 1
    for band in (1, 17, 18, 100, 23 * 17 - 1, 23 * 17):
        monkeypatch.setattr(transforms, "BAND", band)
        assert torch.equal(photometric_distortion(image, generator(3)), plain_distortion(image, generator(3)))
        padded = normalize_and_pad(image, mean, std, (30, 20))
        assert torch.equal(padded, pad((image.float() - mean) / std, (30, 20), 0.0))


@pytest.mark.parametrize("kind", KINDS)
@given(saturation=st.floats(0.5, 1.5), hue=st.floats(-0.1, 0.1), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_saturation_and_hue_are_the_plain_ones_bit_for_bit(kind: str, saturation: float, hue: float, seed: int) -> None:
    pixels = picture(kind, (19, 33), seed).float()
    given_pixels = pixels.clone()
    shifted = shift_saturation_and_hue(pixels, saturation, hue)
    assert torch.equal(shifted, plain_saturation_and_hue(pixels, saturation, hue))
    assert torch.equal(pixels, given_pixels)


@pytest.mark.parametrize("hue", [-1 / 3, -0.2, -0.1, 0.0, 0.1, 0.2, 1 / 3])
def test_every_sixteenth_color_shifts_as_plainly(hue: float) -> None:
    levels = torch.arange(0, 256, 15).float()
    colors = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).flatten(2)
    for saturation in (0.5, 1.0, 1.5):
        shifted = shift_saturation_and_hue(colors, saturation, hue)
        assert torch.equal(shifted, plain_saturation_and_hue(colors, saturation, hue))


@settings(max_examples=150, deadline=None)
@given(sides=st.tuples(*[st.integers(1, 400)] * 4), seed=st.integers(0, 2**31))
def test_masks_resize_as_torch_does_nearest(sides: tuple[int, int, int, int], seed: int) -> None:
    mask, size = labels(sides[:2], 256, seed), (sides[2], sides[3])
    assert torch.equal(resize_mask(mask, size), plain_mask(mask, size))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 511, 1024, 2047, 4001])
def test_long_sides_resize_as_torch_does_nearest(length: int) -> None:
    for side in (1, 2, 3, 333, 1000, 2000, 4096, 5003):
        mask = (torch.arange(side) % 251).to(torch.uint8)[None]
        assert torch.equal(resize_mask(mask, (1, length)), plain_mask(mask, (1, length)))


RECIPES: dict[str, dict[str, Any]] = {
    "crop and pad": {"resize": (90, 60), "crop": (48, 56)},
    "only pad": {"resize": (40, 30), "ratio": (0.5, 1.0), "crop": (64, 72)},
    "as it is": {"resize": (50, 40), "ratio": (1.0, 1.0), "crop": (40, 50)},
    "not distorted": {"resize": (50, 40), "ratio": (1.0, 1.0), "crop": (40, 50), "photometric": False, "flip": 0.0},
    "rare": {"resize": (90, 60), "crop": (48, 56), "rare_crop": 0.5, "flip": 1.0},
    "three bands": {"resize": (500, 400), "ratio": (1.0, 1.2), "crop": (390, 450)},
}
INPUTS: dict[str, tuple[int, torch.dtype, bool]] = {  # channels, their type, and whether they are raw
    "rgb": (3, torch.uint8, False),
    "raw gray": (1, torch.uint8, True),
    "raw floats": (5, torch.float32, True),
    "one raw float": (1, torch.float32, True),
}


def raw_or_rgb(channels: int, dtype: torch.dtype, seed: int) -> Tensor:
    """(C, 40, 50), the channels of a pixel side by side if there are few, as the data set gives them."""
    image = noise((40, 50), channels, seed).to(dtype)
    return image if channels > 3 else image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", INPUTS)
def test_a_sample_is_the_plain_one_bit_for_bit(kind: str, recipe: str) -> None:
    channels, dtype, raw = INPUTS[kind]
    preprocessing = Preprocessing(pixels="raw", mean=(9.0,) * channels, std=(7.0,) * channels)
    transform = SegmentationTransform(DataConfig(**RECIPES[recipe]), preprocessing if raw else Preprocessing())
    for seed in range(6 if recipe == "three bands" else 40):
        image, mask = raw_or_rgb(channels, dtype, seed), labels((40, 50), seed=seed)
        drawn, expected_drawn = generator(seed), generator(seed)
        output, target = transform(image, mask, drawn)
        expected, expected_target = plain_sample(transform, image, mask, expected_drawn)
        assert torch.equal(output, expected)
        assert torch.equal(target, expected_target)
        assert output.is_contiguous()
        assert target.is_contiguous()
        assert torch.equal(drawn.get_state(), expected_drawn.get_state())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", INPUTS)
def test_nothing_given_is_changed_or_part_of_the_sample(kind: str, recipe: str) -> None:
    channels, dtype, raw = INPUTS[kind]
    preprocessing = Preprocessing(pixels="raw", mean=(9.0,) * channels, std=(7.0,) * channels)
    transform = SegmentationTransform(DataConfig(**RECIPES[recipe]), preprocessing if raw else Preprocessing())
    image, mask = raw_or_rgb(channels, dtype, 1), labels((40, 50), seed=1)
    for seed in range(4):
        output, target = transform(image, mask, generator(seed))
        output.fill_(3)
        target.fill_(3)
    assert torch.equal(image, raw_or_rgb(channels, dtype, 1))
    assert torch.equal(mask, labels((40, 50), seed=1))
