"""The sixteen corruptions of Cityscapes-C (Table 5), each at five severities, for images of any size from 32 x 32 on.

Formulas and constants are those of Hendrycks & Dietterich (ICLR 2019) as published with ImageNet-C, in the form for
images of any size of Michaelis et al. (2019).  Numbers that are drawn come from a generator; published code truncates
to whole grey levels at the end, and so does this.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from segformer.arrays import Array
from segformer.config import Size, check_choice
from segformer.data.images import read_image
from segformer.errors import UserError
from segformer.robustness.ice import draw_ice

Generator = np.random.Generator

GROUPS: dict[str, tuple[str, ...]] = {
    "blur": ("motion_blur", "defocus_blur", "glass_blur", "gaussian_blur"),
    "noise": ("gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"),
    "digital": ("brightness", "contrast", "saturate", "jpeg_compression"),
    "weather": ("snow", "spatter", "fog", "frost"),
}
"""As Table 5 orders them."""
NAMES = tuple(name for names in GROUPS.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 32  # pixels a side
FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The published code has a sixth picture, too, and never draws it."""
TURQUOISE, MUD = (np.array(color, np.float32) / 255 for color in ((175, 238, 238), (63, 42, 20)))
WHOLE = np.float32(1e-3)  # grey levels; what should be whole stays whole when it is truncated after rounding errors


def corrupt(image: Array, name: str, severity: int, rng: Generator, *, frost: Path | None = None) -> Array:
    """Corrupt an image as one of NAMES does at a severity of 1 to 5.  (H, W, 3) uint8 -> (H, W, 3) uint8

    The result is a function of the arguments alone.  ``frost`` is a folder with the photographs of ImageNet-C; without
    it ice is drawn.  Raises a UserError for an unknown name or severity, or an image that is too small.
    """
    check_choice("corruption", name, NAMES)
    if severity not in SEVERITIES:
        raise UserError(f"severity must be within 1 and 5, got {severity}")
    if min(image.shape[:2]) < SMALLEST:
        raise UserError(
            f"only images from {SMALLEST} x {SMALLEST} on can be corrupted, got {image.shape[0]} x {image.shape[1]}"
        )
    pixels = image.astype(np.float32) / 255
    with one_thread():
        if name == "frost":
            return as_pixels(frosted(pixels, rng, *FROST[severity - 1], frost))
        change, settings = CHANGES[name]
        return as_pixels(change(pixels, rng, *settings[severity - 1]))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep OpenCV to one thread: its pool does not survive the fork of a loader's workers, which are many anyway."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def as_pixels(values: Array) -> Array:
    """0-1 -> uint8, cut off at both ends, truncated."""
    return np.asarray((values.clip(0, 1) * np.float32(255) + WHOLE).astype(np.uint8))


# Below, images are (H, W, 3) float32, 0-1, and may leave that range; none is written to.


def motion_blur(image: Array, rng: Generator, radius: int, sigma: float) -> Array:
    """Smear along a line within 45 degrees of level."""
    return streak(image, radius, sigma, rng.uniform(-45, 45))


def streak(image: Array, radius: int, sigma: float, degrees: float) -> Array:
    """Average 2 x radius + 1 copies, each shifted by a whole pixel more and weighted by half a Gaussian.

    Edges are repeated, also where an image is smaller than the shift (published code leaves the farther copies out,
    which darkens such images).
    """
    steps, angle, size = np.arange(2 * radius + 1), np.deg2rad(degrees), 2 * radius
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(angle), np.cos(angle)))
    kernel = np.zeros((2 * size + 1, 2 * size + 1), np.float32)
    np.add.at(kernel, (size + down, size + right), weights / weights.sum())
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE))


def defocus_blur(image: Array, rng: Generator, radius: int, alias: float) -> Array:
    """Average over a disc."""
    return np.asarray(cv2.filter2D(image, -1, disc(radius, alias)))


def disc(radius: int, alias: float) -> Array:
    """A disc with softened rim, at least 17 x 17; of sum 1, but 1.01 where it touches its frame, as published."""
    half = max(8, radius)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    inside = (x**2 + y**2 <= radius**2).astype(np.float32)
    soft = (3, 3) if radius <= 8 else (5, 5)
    return np.asarray(cv2.GaussianBlur(inside / inside.sum(), soft, sigmaX=alias))


def gaussian_blur(image: Array, rng: Generator, sigma: float) -> Array:
    """Convolve with a Gaussian."""
    return gaussian(image, sigma)


def gaussian(values: Array, sigma: float) -> Array:
    """Convolve (H, W, ...) with a Gaussian cut off at four sigma; edges are repeated."""
    side = 2 * int(4 * sigma + 0.5) + 1
    return np.asarray(cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REPLICATE))


def glass_blur(image: Array, rng: Generator, sigma: float, reach: int, rounds: int) -> Array:
    """Blur, let pixels take the colours of neighbours, blur again."""
    pixels = as_pixels(gaussian(image, sigma))
    for _ in range(rounds):
        height, width = pixels.shape[0] - 2 * reach, pixels.shape[1] - 2 * reach
        pixels = displaced(pixels, reach, rng.integers(-reach, reach, (2, height, width), dtype=np.int8))
    return gaussian(pixels.astype(np.float32) / 255, sigma)


def displaced(pixels: Array, reach: int, offsets: Array) -> Array:
    """From the last pixel to the first, leaving out a border: each takes the colour at its offset (down, right).

    Published code means to swap the two, but both sides of its assignment are views of one array: the first half has
    changed what the second half reads, so one is copied over the other.  Results in the literature come from that.
    A pixel that takes from a later one takes what that one took before: such chains are followed to their ends all at
    once, by halving them, which gives what the loop over pixels gives.
    """
    height, width = pixels.shape[:2]
    count = height * width
    place = np.arange(count, dtype=np.int32).reshape(height, width)
    inner = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    moves = np.zeros((height, width), bool)
    moves[inner] = True
    source = place[inner] + offsets[0].astype(np.int32) * width + offsets[1]
    chained = (source > place[inner]) & moves.ravel()[source]
    target = np.arange(2 * count, dtype=np.int32)  # the pixels as they become, then as they were
    target[:count] += count
    target[place[inner]] = np.where(chained, source, source + count)
    pending = place[inner][chained]
    while pending.size:
        target[pending] = target[target[pending]]
        pending = pending[target[pending] < count]
    return np.asarray(pixels.reshape(count, -1)[target[:count] - count].reshape(pixels.shape))


def gaussian_noise(image: Array, rng: Generator, deviation: float | Array) -> Array:
    """Add normal noise."""
    return np.asarray(image + np.asarray(deviation, np.float32) * rng.standard_normal(image.shape, dtype=np.float32))


def impulse_noise(image: Array, rng: Generator, share: float) -> Array:
    """Set a share of the values (of each channel by itself) to 0 or 1."""
    drawn = rng.random(image.shape, dtype=np.float32)
    return np.where(drawn < share, (drawn < share / 2).astype(np.float32), image)


def shot_noise(image: Array, rng: Generator, photons: float) -> Array:
    """Count photons: a Poisson variable whose mean at white is given."""
    return np.asarray(rng.poisson(image * photons) / photons, dtype=np.float32)


def speckle_noise(image: Array, rng: Generator, deviation: float) -> Array:
    """Multiply by normal noise around 1."""
    return gaussian_noise(image, rng, deviation * image)


def brightness(image: Array, rng: Generator, amount: float) -> Array:
    """Add to the value of HSV, hue and saturation kept: a factor for the three channels; black becomes grey."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.minimum(value + np.float32(amount), 1)
    return np.asarray(np.where(value > 0, image * (brighter / np.maximum(value, 1e-6)), brighter))


def contrast(image: Array, rng: Generator, factor: float) -> Array:
    """Draw every value towards its channel's mean."""
    mean = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return np.asarray((image - mean) * np.float32(factor) + mean)


def saturate(image: Array, rng: Generator, factor: float, offset: float) -> Array:
    """Change the saturation of HSV: grey has hue 0 there, so an offset turns it red."""
    value = image.max(axis=2, keepdims=True)
    chroma = value - image.min(axis=2, keepdims=True)
    saturation = (chroma / np.maximum(value, 1e-6) * np.float32(factor) + np.float32(offset)).clip(0, 1)
    away = np.where(chroma > 0, (value - image) / np.maximum(chroma, 1e-6), np.array((0, 1, 1), np.float32))
    return np.asarray(value * (1 - saturation * away))


def jpeg_compression(image: Array, rng: Generator, quality: int) -> Array:
    """Encode as JPEG and decode."""
    buffer = BytesIO()
    Image.fromarray(as_pixels(image)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), dtype=np.float32) / 255


def snow(
    image: Array,
    rng: Generator,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
) -> Array:
    """Whiten, then add flakes that fall within 45 degrees of the vertical, and the same turned by 180 degrees."""
    height, width = image.shape[:2]
    small = (ceil(height / zoom), ceil(width / zoom))
    drawn = rng.normal(mean, deviation, small).astype(np.float32)
    flakes = stretched(drawn, (round(small[0] * zoom), round(small[1] * zoom)))
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1).astype(np.float32)
    flakes = streak(flakes, radius, sigma, rng.uniform(-135, -45))[:height, :width]
    flakes = np.round(flakes * 255) / 255
    pale = np.maximum(image, 1.5 * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] + 0.5)
    return np.asarray(keep * image + (1 - keep) * pale + (flakes + flakes[::-1, ::-1])[..., None], dtype=np.float32)


def stretched(values: Array, size: Size) -> Array:
    """Enlarge (h, w) linearly, corner on corner."""
    enlarged = F.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear", align_corners=True)
    return np.asarray(enlarged[0, 0].numpy())


def spatter(
    image: Array,
    rng: Generator,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> Array:
    """Splash water over the lens, or from severity 4 on mud."""
    height, width = image.shape[:2]
    drops = gaussian(rng.normal(mean, deviation, (height, width)).astype(np.float32), sigma)
    drops = np.where(drops < threshold, 0, drops).astype(np.float32)
    if mud:
        cover = gaussian((drops > threshold).astype(np.float32), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None].astype(np.float32)
        return np.asarray(image * (1 - cover) + cover * MUD)
    wet = wetness(as_pixels(drops))
    return np.asarray(image + wet[..., None] * np.float32(strength / max(float(wet.max()), 1e-6)) * TURQUOISE)


def wetness(drops: Array) -> Array:
    """Shade drops by the distance to their outlines, lit from one corner.  (H, W) uint8 -> (H, W) float32"""
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    relief = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    relief = cv2.filter2D(relief, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    return np.asarray(drops * cv2.blur(relief, (3, 3)).astype(np.float32))


def fog(image: Array, rng: Generator, strength: float, decay: float) -> Array:
    """Add plasma, and darken so that the brightest value stays what it was where the plasma is thickest."""
    height, width = image.shape[:2]
    haze = plasma(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width, None]
    brightest = image.max()
    return np.asarray((image + strength * haze) * (brightest / (brightest + strength)), dtype=np.float32)


def plasma(side: int, decay: float, rng: Generator) -> Array:
    """Heights of the diamond-square algorithm on a torus, whose side is a power of two.  -> (side, side), 0-1"""
    heights = np.zeros((side, side), np.float32)
    step, roughness = side, 100.0

    def around(neighbours: Array) -> Array:
        return neighbours / 4 + np.float32(roughness**2) * (2 * rng.random(neighbours.shape, dtype=np.float32) - 1)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        centres = heights[half::step, half::step] = around(pairs + np.roll(pairs, -1, axis=1))
        rows = corners + np.roll(corners, -1, axis=1) + centres + np.roll(centres, 1, axis=0)
        heights[::step, half::step] = around(rows)
        columns = corners + np.roll(corners, -1, axis=0) + centres + np.roll(centres, 1, axis=1)
        heights[half::step, ::step] = around(columns)
        step, roughness = half, roughness / decay
    low, high = heights.min(), heights.max()
    return np.asarray((heights - low) / (high - low))


def frosted(image: Array, rng: Generator, keep: float, amount: float, folder: Path | None) -> Array:
    """Lay ice over the image, photographed or drawn."""
    size = (image.shape[0], image.shape[1])
    ice = draw_ice(size, rng) if folder is None else cut_out(frost_pictures(folder), size, rng)
    return np.asarray(np.float32(keep) * image + np.float32(amount) * ice)


def cut_out(pictures: tuple[Array, ...], size: Size, rng: Generator) -> Array:
    """Part of one of the pictures, enlarged where it is smaller than the image.  -> (H, W, 3) float32, 0-1"""
    picture = pictures[rng.integers(len(pictures))]
    scale = 1.1 * max(1, size[0] / picture.shape[0], size[1] / picture.shape[1])
    sides = (ceil(picture.shape[1] * scale), ceil(picture.shape[0] * scale))
    large = cv2.resize(picture, sides, interpolation=cv2.INTER_CUBIC)
    top, left = (int(rng.integers(large.shape[axis] - size[axis])) for axis in (0, 1))
    return large[top : top + size[0], left : left + size[1]].astype(np.float32) / 255


@lru_cache(maxsize=1)
def frost_pictures(folder: Path) -> tuple[Array, ...]:
    """Read the published photographs, once in a process."""
    return tuple(read_image(path) for path in frost_files(folder))


def frost_files(folder: Path) -> list[Path]:
    """Find the published photographs; raises UserError that names the one that is missing."""
    paths = [folder / name for name in FROST_FILES]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{folder} must hold the pictures of ImageNet-C ({', '.join(FROST_FILES)}), but has no {path.name}; "
                f"leave --frost out to have ice drawn"
            )
    return paths


FROST: tuple[tuple[float, float], ...] = (
    (1, 0.4),
    (0.8, 0.6),
    (0.7, 0.7),
    (0.65, 0.7),
    (0.6, 0.75),
)  # how much of the image, and of the ice
CHANGES: dict[str, tuple[Callable[..., Array], tuple[tuple[Any, ...], ...]]] = {  # constants of severities 1 to 5
    "motion_blur": (motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "defocus_blur": (defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass_blur": (glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "gaussian_blur": (gaussian_blur, ((1,), (2,), (3,), (4,), (6,))),
    "gaussian_noise": (gaussian_noise, ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,))),
    "impulse_noise": (impulse_noise, ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,))),
    "shot_noise": (shot_noise, ((60,), (25,), (12,), (5,), (3,))),
    "speckle_noise": (speckle_noise, ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,))),
    "brightness": (brightness, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,))),
    "contrast": (contrast, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,))),
    "saturate": (saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
    "jpeg_compression": (jpeg_compression, ((25,), (18,), (15,), (10,), (7,))),
    "snow": (
        snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "spatter": (
        spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
    ),
    "fog": (fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
}
