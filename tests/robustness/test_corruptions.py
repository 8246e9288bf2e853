import colorsys
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segformer.data.sources.toytown import Scene
from segformer.errors import UserError
from segformer.robustness.corruptions import (
    CHANGES,
    FROST_FILES,
    GROUPS,
    NAMES,
    SEVERITIES,
    corrupt,
    cut_out,
    disc,
    displaced,
    plasma,
    stretched,
)

CERTAIN = ("defocus_blur", "gaussian_blur", "brightness", "contrast", "saturate", "jpeg_compression")
SETTINGS = {name: settings for name, (_, settings) in CHANGES.items()}
EVERY = [(name, severity) for name in NAMES for severity in SEVERITIES]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(seed: int = 100_003) -> np.ndarray:
    """Part of a drawn street, small so that tests are quick."""
    return Scene(seed).read()[0][40:136, 60:220]


def flat(level: int, size: tuple[int, int] = (128, 128)) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2))


def in_hsv(image: np.ndarray, change: object) -> np.ndarray:
    """Change (hue, saturation, value) pixel by pixel with the standard library."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.reshape(-1, 3) / 255]
    return (np.array(pixels) * 255).reshape(image.shape)


def near(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the truncated expectation, but for rounding errors next to whole grey levels."""
    assert np.abs(found - (expected - 0.5)).max() < 0.51


def test_the_sixteen_of_table_5() -> None:
    assert len(NAMES) == len(set(NAMES)) == 16
    assert {name: len(settings) for name, settings in SETTINGS.items()} == dict.fromkeys(SETTINGS, 5)
    assert [*SETTINGS, "frost"] == list(NAMES)
    assert [len(names) for names in GROUPS.values()] == [4, 4, 4, 4]


@pytest.mark.parametrize(("name", "severity"), EVERY)
def test_a_function_of_image_and_generator(name: str, severity: int) -> None:
    image = scene()
    image.setflags(write=False)
    before = image.copy()
    first, again = (corrupt(image, name, severity, rng(5)) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, before)
    assert (first != image).any()
    other = corrupt(image, name, severity, rng(6))
    assert (first == other).all() == (name in CERTAIN)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "frost"])
def test_more_is_farther_from_the_image(name: str) -> None:
    images = [scene(seed) for seed in (100_001, 100_003, 100_007)]
    averages = [
        np.mean([psnr(corrupt(image, name, severity, rng(k)), image) for k, image in enumerate(images)])
        for severity in SEVERITIES
    ]
    if name == "saturate":  # severities 1 and 2 take colour away, 3 to 5 add it
        assert averages[0] > averages[1]
        assert averages[2] > averages[3] > averages[4]
    elif name == "glass_blur":  # 3 moves pixels in three rounds, 4 in two: the published order
        assert averages[0] > min(averages[1:])
        assert averages[0] > averages[4] + 1
    elif name == "spatter":  # water up to 3, then mud
        assert averages[0] > averages[1] > averages[2]
        assert averages[3] > averages[4]
    elif name == "fog":  # 3 and 4 differ in how rough the clouds are
        assert averages[0] > averages[1] > averages[2] > averages[4]
    elif name == "snow":  # 2 has small flakes and 3 large ones
        assert averages[0] > averages[1] > averages[3] > averages[4]
        assert averages[2] > averages[3]
    else:
        assert averages == sorted(averages, reverse=True), averages


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 32), (33, 100), (101, 32), (33, 1000)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    image = np.asarray(Image.fromarray(scene()).resize(size[::-1]))
    for severity in (1, 4, 5):
        assert corrupt(image, name, severity, rng()).shape == (*size, 3)


@pytest.mark.parametrize("name", NAMES)
def test_black_grey_and_white(name: str) -> None:
    for level in (0, 128, 255):
        for severity in (1, 3, 5):
            assert corrupt(flat(level, (32, 48)), name, severity, rng()).shape == (32, 48, 3)


@pytest.mark.parametrize("name", ["motion_blur", "glass_blur", "gaussian_blur", "contrast"])
def test_what_has_no_structure_keeps_its_level(name: str) -> None:
    for severity in SEVERITIES:
        assert (corrupt(flat(77, (40, 50)), name, severity, rng()) == 77).all()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"corruption must be one of .* did you mean 'motion_blur'"):
        corrupt(scene(), "motion_blurr", 1, rng())
    with pytest.raises(ValueError, match="severity must be within 1 and 5, got 6"):
        corrupt(scene(), "fog", 6, rng())
    with pytest.raises(ValueError, match="only images from 32 x 32 on can be corrupted, got 31 x 60"):
        corrupt(flat(0, (31, 60)), "fog", 1, rng())


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_is_a_separable_convolution(severity: int) -> None:
    image, sigma = scene(), (1, 2, 3, 4, 6)[severity - 1]
    x = np.arange(-4 * sigma, 4 * sigma + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    expected = image.astype(np.float64)
    for axis in (0, 1):
        expected = ndimage.correlate1d(expected, kernel / kernel.sum(), axis=axis, mode="nearest")
    near(corrupt(image, "gaussian_blur", severity, rng()), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_defocus_is_the_mean_of_a_disc(severity: int) -> None:
    radius, alias = SETTINGS["defocus_blur"][severity - 1]
    kernel = disc(radius, alias)
    assert kernel.sum() == pytest.approx(1, abs=0.014)  # published: 1.013 where the disc touches its frame
    assert (kernel > 0.5 * kernel.max()).sum() == pytest.approx(np.pi * radius**2, rel=0.1)
    expected = np.stack(
        [ndimage.correlate(scene()[..., c].astype(float), kernel, mode="mirror") for c in range(3)], axis=-1
    )
    near(corrupt(scene(), "defocus_blur", severity, rng()), expected.clip(0, 255))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_blur_smears_a_point_along_a_line(severity: int) -> None:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    image = flat(0, (201, 201))
    image[100, 100] = 255
    down, right = np.nonzero(corrupt(image, "motion_blur", severity, rng())[..., 0])
    assert right.max() == 100  # the weights begin at the pixel itself, and fall off to one side
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    bright = (255 * weights / weights.sum() >= 1).sum() - 1
    length = np.hypot(down - 100, right - 100).max()
    assert length == pytest.approx(bright, abs=1.5)
    expected = int(255 / weights.sum() + 1e-3)
    assert corrupt(image, "motion_blur", severity, rng())[100, 100, 0] == expected


def test_glass_moves_pixels_as_a_loop_over_them_does() -> None:
    for reach, (height, width) in ((1, (32, 40)), (2, (33, 35)), (4, (40, 32))):
        generator = rng(reach)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        offsets = generator.integers(-reach, reach, (2, height - 2 * reach, width - 2 * reach))
        expected = pixels.copy()
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = offsets[:, row - reach - 1, column - reach - 1]
                expected[row, column] = expected[row + down, column + right]
        np.testing.assert_array_equal(displaced(pixels, reach, offsets), expected)
        assert (expected != pixels).mean() > 0.5


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_and_speckle_noise_have_the_published_deviation(severity: int) -> None:
    for name, expected in (
        ("gaussian_noise", (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]),
        ("speckle_noise", 128 / 255 * (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]),
    ):
        found = corrupt(flat(128), name, severity, rng()).astype(float)
        low, high = np.percentile(found, (25, 75))  # quartiles: the tails are cut off at black and white
        assert (high - low) / 255 / 1.349 == pytest.approx(expected, rel=0.03)
        assert not np.array_equal(found[..., 0], found[..., 1])
    assert (corrupt(flat(0), "speckle_noise", severity, rng()) == 0).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulses_hit_the_published_share_of_values(severity: int) -> None:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    found = corrupt(flat(100), "impulse_noise", severity, rng())
    assert (found != 100).mean() == pytest.approx(share, rel=0.08)
    assert (found == 255).mean() == pytest.approx(share / 2, rel=0.1)
    assert (found == 0).mean() == pytest.approx(share / 2, rel=0.1)
    assert (found[..., 0] != found[..., 1]).mean() > share  # channels are hit one by one


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_counts_photons(severity: int) -> None:
    photons, level = (60, 25, 12, 5, 3)[severity - 1], 51
    found = corrupt(flat(level, (256, 256)), "shot_noise", severity, rng()).astype(float) / 255 * photons
    counts = np.round(found + 0.3 * photons / 255).astype(int)  # truncated grey levels lie below whole photons
    mean = level / 255 * photons
    for count in range(min(photons, 20)):
        expected = math.exp(-mean) * mean**count / math.factorial(count)
        assert (counts == count).mean() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_is_added_in_hsv(severity: int) -> None:
    image, amount = scene()[:24, :40], 0.1 * severity
    image = np.concatenate([image, np.zeros_like(image[:8]), np.full_like(image[:8], 90)])
    expected = in_hsv(image, lambda hue, saturation, value: (hue, saturation, min(value + amount, 1)))
    near(corrupt(image, "brightness", severity, rng()), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_saturation_is_changed_in_hsv_where_grey_is_red(severity: int) -> None:
    factor, offset = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    image = np.concatenate([scene()[:24, :40], np.full((8, 40, 3), 90, np.uint8)])
    expected = in_hsv(image, lambda h, s, v: (h, min(max(s * factor + offset, 0), 1), v))
    near(corrupt(image, "saturate", severity, rng()), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_around_the_mean_of_each_channel(severity: int) -> None:
    image, factor = scene(), (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.reshape(-1, 3).mean(axis=0)
    near(corrupt(image, "contrast", severity, rng()), mean + factor * (image - mean))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_has_the_published_quality(severity: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    np.testing.assert_array_equal(corrupt(scene(), "jpeg_compression", severity, rng()), Image.open(buffer))


def plasma_point_by_point(side: int, decay: float, draws: np.random.Generator) -> np.ndarray:
    """The diamond-square algorithm as it is told: squares first, then diamonds, on a torus."""
    heights, step, roughness = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        centres = [(half, half, ((-1, -1), (-1, 1), (1, -1), (1, 1)))]
        edges = [(0, half, ((-1, 0), (1, 0), (0, -1), (0, 1))), (half, 0, ((-1, 0), (1, 0), (0, -1), (0, 1)))]
        for top, left, neighbours in centres + edges:
            noise = roughness**2 * (2 * draws.random((side // step, side // step), dtype=np.float32) - 1)
            for i, row in enumerate(range(top, side, step)):
                for j, column in enumerate(range(left, side, step)):
                    around = [heights[(row + y * half) % side, (column + x * half) % side] for y, x in neighbours]
                    heights[row, column] = np.mean(around) + noise[i, j]
        step, roughness = half, roughness / decay
    return (heights - heights.min()) / np.ptp(heights)


@pytest.mark.parametrize("decay", [2.0, 1.4])
def test_plasma_is_the_diamond_square_algorithm(decay: float) -> None:
    np.testing.assert_allclose(plasma(32, decay, rng(3)), plasma_point_by_point(32, decay, rng(3)), atol=1e-5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_adds_plasma_and_keeps_the_brightest_value(severity: int) -> None:
    strength, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    image = scene()[:60, :100]
    haze = plasma_point_by_point(128, decay, rng(severity))[:60, :100, None]
    brightest = image.max() / 255
    expected = (image / 255 + strength * haze) * brightest / (brightest + strength)
    near(corrupt(image, "fog", severity, rng(severity)), expected.clip(0, 1) * 255)


def smeared(values: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Shifted copies one by one, edges repeated."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    rows, columns = np.indices(values.shape[:2])
    total = np.zeros(values.shape)
    for step, weight in enumerate(weights / weights.sum()):
        down = math.ceil(step * math.sin(math.radians(degrees)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(degrees)) - 0.5)
        total += weight * values[(rows + down).clip(0, len(values) - 1), (columns + right).clip(0, values.shape[1] - 1)]
    return total


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [(96, 160), (32, 37)])
def test_motion_blur_is_a_weighted_sum_of_shifted_images(severity: int, size: tuple[int, int]) -> None:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    image = scene()[: size[0], : size[1]]
    expected = smeared(image.astype(float), radius, sigma, rng(severity).uniform(-45, 45))
    near(corrupt(image, "motion_blur", severity, rng(severity)), expected)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_is_zoomed_noise_above_a_threshold_smeared_downwards(severity: int) -> None:
    mean, deviation, zoom, threshold, radius, sigma, keep = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    image, draws = scene(), rng(severity)
    height, width = image.shape[:2]
    small = draws.normal(mean, deviation, (math.ceil(height / zoom), math.ceil(width / zoom)))
    down, right = (round(side * zoom) for side in small.shape)
    places = np.mgrid[0 : small.shape[0] - 1 : down * 1j, 0 : small.shape[1] - 1 : right * 1j]
    flakes = ndimage.map_coordinates(small, places, order=1, mode="nearest")
    flakes = np.where(flakes < threshold, 0, flakes.clip(0, 1))
    flakes = smeared(flakes, radius, sigma, draws.uniform(-135, -45))[:height, :width, None].round(2)
    grey = (image / 255) @ (0.299, 0.587, 0.114)
    pale = keep * image / 255 + (1 - keep) * np.maximum(image / 255, 1.5 * grey[..., None] + 0.5)
    expected = (pale + flakes + np.rot90(flakes, 2)).clip(0, 1) * 255
    found = corrupt(image, "snow", severity, rng(severity))
    assert np.abs(found - expected).max() < 4.5  # flakes are rounded to grey levels there, to hundredths here
    assert np.abs(found - expected).mean() < 1.2


def test_layers_are_stretched_corner_on_corner() -> None:
    small = rng().random((7, 9)).astype(np.float32)
    exact = ndimage.map_coordinates(small.astype(float), np.mgrid[0:6:20j, 0:8:31j], order=1, mode="nearest")
    np.testing.assert_allclose(stretched(small, (20, 31)), exact, atol=1e-5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_spatter_is_turquoise_water_then_brown_mud(severity: int) -> None:
    mean, deviation, sigma, threshold, strength = (
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    )[severity - 1]
    found = corrupt(flat(80, (192, 192)), "spatter", severity, rng(severity)).astype(int)
    drops = ndimage.gaussian_filter(rng(severity).normal(mean, deviation, (192, 192)), sigma, mode="nearest")
    if severity > 3:
        cover = ndimage.gaussian_filter((drops > threshold).astype(float), strength, mode="nearest")[..., None]
        cover[cover < 0.8] = 0
        near(found, 80 * (1 - cover) + cover * np.array([63, 42, 20]))
        return
    wet = (found != 80).any(axis=2)
    assert (drops[wet] > threshold - 1e-4).all()
    assert wet.sum() > 0.5 * (drops > threshold).sum()
    added = (found[wet] - 80).max(axis=0) / 255
    np.testing.assert_allclose(added, strength * np.array([175, 238, 238]) / 255, atol=0.01)


def write_photographs(folder: Path) -> Path:
    folder.mkdir()
    for k, name in enumerate(FROST_FILES):
        Image.new("RGB", (50, 40), (10 * k, 100, 200)).save(folder / name, quality=100)
    return folder


def test_frost_blends_the_photographs_that_are_given(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "frost")
    for severity, (keep, amount) in enumerate(((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)), start=1):
        seen = set()
        for seed in range(30):
            found = corrupt(flat(100, (90, 33)), "frost", severity, rng(seed), frost=folder).astype(float)
            red, green, blue = ((found[0, 0] - keep * 100) / amount).round()
            assert np.ptp(found, axis=(0, 1)).max() <= 1
            assert abs(green - 100) <= 3
            assert abs(blue - 200) <= 3 or keep * 100 + amount * 200 > 255
            seen.add(round(red / 10))
        assert seen == {0, 1, 2, 3, 4}


def test_frost_is_cut_out_of_a_picture_enlarged_by_a_tenth() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(100, axis=1)
    part = cut_out((ramp,), (180, 90), rng())[..., 0] * 255
    assert part.shape == (180, 90)
    assert np.diff(part[20:160].mean(axis=1)).mean() == pytest.approx(1 / 1.1, rel=0.02)


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "frost")
    (folder / "frost4.jpg").unlink()
    with pytest.raises(UserError, match=r"has no frost4\.jpg; leave --frost out to have ice drawn"):
        corrupt(scene(), "frost", 1, rng(), frost=folder)


def test_drawn_ice_is_bluish_bright_and_detailed() -> None:
    """Near the photographs' figures: means 117-207, deviations 23-44, detail 10-25 (of 255)."""
    means, deviations, details = [], [], []
    for seed in range(6):
        keep, amount = 1, 0.4
        ice = (corrupt(flat(0, (200, 320)), "frost", 1, rng(seed)).astype(float) - keep * 0) / amount
        red, _, blue = ice.reshape(-1, 3).mean(axis=0)
        assert red < blue
        grey = ice.mean(axis=2)
        means.append(grey.mean())
        deviations.append(grey.std())
        details.append((grey - ndimage.gaussian_filter(grey, 4)).std())
    assert min(means) > 110
    assert max(means) < 215
    assert np.ptp(means) > 15
    assert 20 < min(deviations) < max(deviations) < 50
    assert 8 < min(details) < max(details) < 30
