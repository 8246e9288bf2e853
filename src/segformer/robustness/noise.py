"""Noise corruptions: Gaussian, impulse, shot, speckle.

Images are (H, W, 3) float32 from 0 to 1; results may be outside that range.  The given image is never changed.
"""

import numpy as np

from segformer.arrays import Array


def gaussian_noise(image: Array, rng: np.random.Generator, deviation: float | Array) -> Array:
    """Add normally distributed noise with this standard deviation."""
    return np.asarray(image + np.asarray(deviation, np.float32) * rng.standard_normal(image.shape, dtype=np.float32))


def impulse_noise(image: Array, rng: np.random.Generator, share: float) -> Array:
    """Set this share of the values to 0 or 1; each channel is chosen independently of the others."""
    drawn = rng.random(image.shape, dtype=np.float32)
    return np.where(drawn < share, (drawn < share / 2).astype(np.float32), image)


def shot_noise(image: Array, rng: np.random.Generator, photons: float) -> Array:
    """Replace every value by a random photon count (Poisson), divided by ``photons``, the mean count of white."""
    return np.asarray(rng.poisson(image * photons) / photons, dtype=np.float32)


def speckle_noise(image: Array, rng: np.random.Generator, deviation: float) -> Array:
    """Multiply every value by normally distributed noise with mean 1."""
    return gaussian_noise(image, rng, deviation * image)
