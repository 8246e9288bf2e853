"""Blur corruptions: motion, defocus, glass, Gaussian.

Images are (H, W, 3) float32 from 0 to 1; results may be outside that range.  The given image is never changed.
OpenCV is imported inside the functions, so that the table of corruptions can be read without it.
"""

import numpy as np

from segformer.arrays import Array
from segformer.robustness.digital import to_uint8


def motion_blur(image: Array, rng: np.random.Generator, radius: int, sigma: float) -> Array:
    """Smear the image along a random direction that is at most 45 degrees from horizontal."""
    return smear(image, radius, sigma, rng.uniform(-45, 45))


def smear(image: Array, radius: int, sigma: float, degrees: float) -> Array:
    """Return the weighted average of 2 x radius + 1 copies of the image, each shifted one pixel further.

    The weights fall like one half of a Gaussian.  Border pixels are repeated, even if a shift is larger than the image.
    The published code leaves out the copies whose shift is larger than the image, which darkens small images.
    """
    import cv2

    size = 2 * radius
    steps = np.arange(size + 1)
    angle = np.deg2rad(degrees)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(angle), np.cos(angle)))
    kernel = np.zeros((2 * size + 1, 2 * size + 1), np.float32)
    np.add.at(kernel, (size + down, size + right), weights / weights.sum())
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE))


def defocus_blur(image: Array, rng: np.random.Generator, radius: int, alias: float) -> Array:
    """Replace every pixel by the average over a disc around it."""
    import cv2

    return np.asarray(cv2.filter2D(image, -1, disc_kernel(radius, alias)))


def disc_kernel(radius: int, alias: float) -> Array:
    """Return a convolution kernel of at least 17 x 17 that is a disc with a soft rim.

    Its sum is 1, or about 1.01 if the disc touches the edge of the kernel, as in the published code.
    """
    import cv2

    half = max(8, radius)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    inside = (x**2 + y**2 <= radius**2).astype(np.float32)
    soft = (3, 3) if radius <= 8 else (5, 5)
    return np.asarray(cv2.GaussianBlur(inside / inside.sum(), soft, sigmaX=alias))


def gaussian_blur(image: Array, rng: np.random.Generator, sigma: float) -> Array:
    """Convolve the image with a Gaussian."""
    return smooth(image, sigma)


def smooth(values: Array, sigma: float) -> Array:
    """Convolve with a Gaussian, cut off at four sigma; border pixels are repeated.  (H, W, ...) -> (H, W, ...)"""
    import cv2

    side = 2 * int(4 * sigma + 0.5) + 1
    return np.asarray(cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REPLICATE))


def glass_blur(image: Array, rng: np.random.Generator, sigma: float, reach: int, rounds: int) -> Array:
    """Blur the image, replace every pixel by a random neighbor in each of ``rounds`` rounds, and blur again.

    A neighbor is at most ``reach`` rows and ``reach`` columns away.
    """
    pixels = to_uint8(smooth(image, sigma))
    height, width = pixels.shape[0] - 2 * reach, pixels.shape[1] - 2 * reach
    for _ in range(rounds):
        pixels = displace(pixels, reach, rng.integers(-reach, reach, (2, height, width), dtype=np.int8))
    return smooth(pixels.astype(np.float32) / 255, sigma)


def displace(pixels: Array, reach: int, offsets: Array) -> Array:
    """Replace every pixel, from the last to the first, by the pixel at its offset (down, right), except at the border.

    The published code was meant to swap each pixel with the one at its offset.  But both sides of its assignment are
    views of one array, so the pixel is overwritten and the other one is unchanged.  Published results contain this
    error, and it is reproduced here.

    A loop over the pixels would be slow.  The source of a pixel is the pixel at its offset.  Pixels are replaced
    from the last to the first, so a source that comes later in the image has already been replaced by its own source,
    and so on: the sources form a chain.  Pointer jumping follows all chains to their ends at once: every round halves
    the lengths of the chains.
    """
    height, width = pixels.shape[:2]
    count = height * width
    index = np.arange(count, dtype=np.int32).reshape(height, width)
    inner = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    moves = np.zeros((height, width), bool)
    moves[inner] = True
    source = index[inner] + offsets[0].astype(np.int32) * width + offsets[1]
    chained = (source > index[inner]) & moves.ravel()[source]
    target = np.arange(2 * count, dtype=np.int32)  # first half: pixels after the change, second half: before
    target[:count] += count
    target[index[inner]] = np.where(chained, source, source + count)
    pending = index[inner][chained]
    while pending.size:
        target[pending] = target[target[pending]]
        pending = pending[target[pending] < count]
    return np.asarray(pixels.reshape(count, -1)[target[:count] - count].reshape(pixels.shape))
