"""Noise corruptions: Gaussian, impulse, shot, speckle.

Images are (H, W, 3) float32 from 0 to 1; results may be outside that range.  The given image is never changed.
"""

import numpy as np

from segformer.arrays import Array


def gaussian_noise(image: Array, rng: np.random.Generator, deviation: float | Array) -> Array:
    """Add normally distributed noise whose standard deviation is ``deviation``."""
    return np.asarray(image + np.asarray(deviation, np.float32) * rng.standard_normal(image.shape, dtype=np.float32))


def impulse_noise(image: Array, rng: np.random.Generator, share: float) -> Array:
    """Set a share of all values to 0 or 1, half of them to each; the three channels of a pixel are independent."""
    drawn = rng.random(image.shape, dtype=np.float32)
    return np.where(drawn < share, (drawn < share / 2).astype(np.float32), image)


def shot_noise(image: Array, rng: np.random.Generator, photons: float) -> Array:
    """Replace every value by a Poisson-distributed photon count, divided by ``photons``, the mean count for white."""
    return np.asarray(rng.poisson(image * photons) / photons, dtype=np.float32)


def speckle_noise(image: Array, rng: np.random.Generator, deviation: float) -> Array:
    """Multiply every value by normally distributed noise with mean 1 and standard deviation ``deviation``."""
    return gaussian_noise(image, rng, deviation * image)
