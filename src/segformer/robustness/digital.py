"""Digital corruptions: brightness, contrast, saturation, JPEG.

Images are (H, W, 3) float32 from 0 to 1; results may be outside that range.  The given image is never changed.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from segformer.arrays import Array

ROUNDING = np.float32(1e-3)  # gray levels; added before truncation, so that rounding errors of float32 lower no level


def to_uint8(values: Array) -> Array:
    """Clip values to the range from 0 to 1, scale them to 0 to 255, and truncate them, as the published code does."""
    return np.asarray((values.clip(0, 1) * np.float32(255) + ROUNDING).astype(np.uint8))


def brightness(image: Array, rng: np.random.Generator, amount: float) -> Array:
    """Add ``amount`` to the value (V of HSV); hue and saturation are unchanged, and black becomes gray."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.minimum(value + np.float32(amount), 1)
    return np.asarray(np.where(value > 0, image * (brighter / np.maximum(value, 1e-6)), brighter))


def contrast(image: Array, rng: np.random.Generator, factor: float) -> Array:
    """Multiply the distance of every value from its channel's mean by ``factor``."""
    mean = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return np.asarray((image - mean) * np.float32(factor) + mean)


def saturate(image: Array, rng: np.random.Generator, factor: float, offset: float) -> Array:
    """Multiply the saturation (S of HSV) by ``factor`` and add ``offset``; a positive offset makes gray reddish."""
    value = image.max(axis=2, keepdims=True)
    chroma = value - image.min(axis=2, keepdims=True)
    saturation = (chroma / np.maximum(value, 1e-6) * np.float32(factor) + np.float32(offset)).clip(0, 1)
    away = np.where(chroma > 0, (value - image) / np.maximum(chroma, 1e-6), np.array((0, 1, 1), np.float32))
    return np.asarray(value * (1 - saturation * away))


def jpeg_compression(image: Array, rng: np.random.Generator, quality: int) -> Array:
    """Encode the image as JPEG and decode it again."""
    buffer = BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), dtype=np.float32) / 255
