import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from corruption_images import flat, near, rng, scene, smeared
from segformer.errors import UserError
from segformer.robustness.corruptions import SEVERITIES, corrupt
from segformer.robustness.weather import FROST_FILES, crop_of_one, enlarge, plasma


def plasma_point_by_point(side: int, decay: float, draws: np.random.Generator) -> np.ndarray:
    """The diamond-square algorithm as it is told: squares first, then diamonds, on a torus."""
    heights, step, roughness = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        centers = [(half, half, ((-1, -1), (-1, 1), (1, -1), (1, 1)))]
        edges = [(0, half, ((-1, 0), (1, 0), (0, -1), (0, 1))), (half, 0, ((-1, 0), (1, 0), (0, -1), (0, 1)))]
        for top, left, neighbors in centers + edges:
            noise = roughness**2 * (2 * draws.random((side // step, side // step), dtype=np.float32) - 1)
            for i, row in enumerate(range(top, side, step)):
                for j, column in enumerate(range(left, side, step)):
                    around = [heights[(row + y * half) % side, (column + x * half) % side] for y, x in neighbors]
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
    gray = (image / 255) @ (0.299, 0.587, 0.114)
    pale = keep * image / 255 + (1 - keep) * np.maximum(image / 255, 1.5 * gray[..., None] + 0.5)
    expected = (pale + flakes + np.rot90(flakes, 2)).clip(0, 1) * 255
    found = corrupt(image, "snow", severity, rng(severity))
    assert np.abs(found - expected).max() < 4.5  # flakes are rounded to gray levels there, to hundredths here
    assert np.abs(found - expected).mean() < 1.2


def test_layers_are_stretched_corner_on_corner() -> None:
    small = rng().random((7, 9)).astype(np.float32)
    exact = ndimage.map_coordinates(small.astype(float), np.mgrid[0:6:20j, 0:8:31j], order=1, mode="nearest")
    np.testing.assert_allclose(enlarge(small, (20, 31)), exact, atol=1e-5)


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
    part = crop_of_one((ramp,), (180, 90), rng())[..., 0] * 255
    assert part.shape == (180, 90)
    assert np.diff(part[20:160].mean(axis=1)).mean() == pytest.approx(1 / 1.1, rel=0.02)


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "frost")
    (folder / "frost4.jpg").unlink()
    with pytest.raises(UserError, match=r"has no frost4\.jpg; leave out --frost to have ice drawn"):
        corrupt(scene(), "frost", 1, rng(), frost=folder)
