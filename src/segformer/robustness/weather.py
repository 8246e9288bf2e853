"""Weather corruptions: snow, spatter, fog, frost.

Images are (H, W, 3) float32 from 0 to 1; results may be outside that range.  The given image is never changed.
OpenCV and torch are imported inside the functions, so that the table of corruptions can be read without them.
"""

from functools import lru_cache
from math import ceil
from pathlib import Path

import numpy as np

from segformer.arrays import Array
from segformer.config import Size
from segformer.errors import UserError
from segformer.robustness.blur import smear, smooth
from segformer.robustness.digital import to_uint8
from segformer.robustness.ice import draw_ice

TURQUOISE = np.array((175, 238, 238), np.float32) / 255
MUD = np.array((63, 42, 20), np.float32) / 255
FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""File names of the photographs of ImageNet-C; the published code has a sixth photograph that it never uses."""


def snow(
    image: Array,
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
) -> Array:
    """Whiten the image; add flakes that fall within 45 degrees of vertical, and their copy rotated by 180 degrees."""
    import cv2

    height, width = image.shape[:2]
    small = (ceil(height / zoom), ceil(width / zoom))
    drawn = rng.normal(mean, deviation, small).astype(np.float32)
    flakes = enlarge(drawn, (round(small[0] * zoom), round(small[1] * zoom)))
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1).astype(np.float32)
    flakes = smear(flakes, radius, sigma, rng.uniform(-135, -45))[:height, :width]
    flakes = np.round(flakes * 255) / 255
    pale = np.maximum(image, 1.5 * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] + 0.5)
    return np.asarray(keep * image + (1 - keep) * pale + (flakes + flakes[::-1, ::-1])[..., None], dtype=np.float32)


def enlarge(values: Array, size: Size) -> Array:
    """Enlarge values bilinearly with aligned corners.  (h, w) -> (H, W)"""
    import torch
    import torch.nn.functional as F

    enlarged = F.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear", align_corners=True)
    return np.asarray(enlarged[0, 0].numpy())


def spatter(
    image: Array,
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> Array:
    """Spatter the lens with water or, if ``mud`` is set (severities 4 and 5), with mud."""
    height, width = image.shape[:2]
    drops = smooth(rng.normal(mean, deviation, (height, width)).astype(np.float32), sigma)
    drops = np.where(drops < threshold, 0, drops).astype(np.float32)
    if mud:
        cover = smooth((drops > threshold).astype(np.float32), strength)
        cover = np.where(cover < 0.8, 0, cover)[..., None].astype(np.float32)
        return np.asarray(image * (1 - cover) + cover * MUD)
    wet = shade_drops(to_uint8(drops))
    return np.asarray(image + wet[..., None] * np.float32(strength / max(float(wet.max()), 1e-6)) * TURQUOISE)


def shade_drops(drops: Array) -> Array:
    """Shade drops by the distance to their outlines, as if lit from a corner.  (H, W) uint8 -> (H, W) float32"""
    import cv2

    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    relief = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    relief = cv2.filter2D(relief, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    return np.asarray(drops * cv2.blur(relief, (3, 3)).astype(np.float32))


def fog(image: Array, rng: np.random.Generator, strength: float, decay: float) -> Array:
    """Add haze, then darken so that the brightest value of the image would be the same under the thickest haze."""
    height, width = image.shape[:2]
    haze = plasma(1 << (max(height, width) - 1).bit_length(), decay, rng)[:height, :width, None]
    brightest = image.max()
    return np.asarray((image + strength * haze) * (brightest / (brightest + strength)), dtype=np.float32)


def plasma(side: int, decay: float, rng: np.random.Generator) -> Array:
    """Return random heights from 0 to 1 by the diamond-square algorithm with wrapped edges.  -> (side, side)

    ``side`` must be a power of two.
    """
    heights = np.zeros((side, side), np.float32)
    step = side
    roughness = 100.0

    def displaced_mean(sums: Array) -> Array:
        return sums / 4 + np.float32(roughness**2) * (2 * rng.random(sums.shape, dtype=np.float32) - 1)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        centers = heights[half::step, half::step] = displaced_mean(pairs + np.roll(pairs, -1, axis=1))
        rows = corners + np.roll(corners, -1, axis=1) + centers + np.roll(centers, 1, axis=0)
        heights[::step, half::step] = displaced_mean(rows)
        columns = corners + np.roll(corners, -1, axis=0) + centers + np.roll(centers, 1, axis=1)
        heights[half::step, ::step] = displaced_mean(columns)
        step = half
        roughness = roughness / decay
    low, high = heights.min(), heights.max()
    return np.asarray((heights - low) / (high - low))


def drawn_frost(image: Array, rng: np.random.Generator, keep: float, amount: float) -> Array:
    """Blend the image with drawn ice; ``keep`` and ``amount`` are the weights of image and ice."""
    return blend(image, draw_ice((image.shape[0], image.shape[1]), rng), keep, amount)


def photographed_frost(image: Array, rng: np.random.Generator, keep: float, amount: float, *, folder: Path) -> Array:
    """Blend the image with a photograph of ice; the folder must contain FROST_FILES."""
    return blend(image, crop_of_one(read_photographs(folder), (image.shape[0], image.shape[1]), rng), keep, amount)


def blend(image: Array, ice: Array, keep: float, amount: float) -> Array:
    """Return ``keep`` times the image plus ``amount`` times the ice."""
    return np.asarray(np.float32(keep) * image + np.float32(amount) * ice)


def crop_of_one(pictures: tuple[Array, ...], size: Size, rng: np.random.Generator) -> Array:
    """Choose a picture, enlarge it beyond the size (H, W), and cut out a random part.  -> (H, W, 3) float32, 0 to 1"""
    import cv2

    picture = pictures[rng.integers(len(pictures))]
    scale = 1.1 * max(1, size[0] / picture.shape[0], size[1] / picture.shape[1])
    sides = (ceil(picture.shape[1] * scale), ceil(picture.shape[0] * scale))
    large = cv2.resize(picture, sides, interpolation=cv2.INTER_CUBIC)
    top, left = (int(rng.integers(large.shape[axis] - size[axis])) for axis in (0, 1))
    return large[top : top + size[0], left : left + size[1]].astype(np.float32) / 255


@lru_cache(maxsize=1)
def read_photographs(folder: Path) -> tuple[Array, ...]:
    """Read the published photographs; each process reads them only once."""
    from segformer.data.images import read_image

    return tuple(read_image(path) for path in find_photographs(folder))


def find_photographs(folder: Path) -> list[Path]:
    """Return the paths of the published photographs; raises a UserError that names a missing one."""
    paths = [folder / name for name in FROST_FILES]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{folder} must contain the frost photographs of ImageNet-C ({', '.join(FROST_FILES)}), but has no "
                f"{path.name}; leave out --frost to have ice drawn"
            )
    return paths
