"""Digital corruptions: brightness, contrast, saturation, JPEG.

Images are (H, W, 3) float32 from 0 to 1; results may leave that range.  The argument is never written to.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from segformer.arrays import Array

ROUNDING = np.float32(1e-3)  # gray levels added before truncation: whole levels survive float32's rounding errors


def to_uint8(values: Array) -> Array:
    """Clip values to 0-1 and truncate them to whole gray levels, 0 to 255, as the published code does."""
    return np.asarray((values.clip(0, 1) * np.float32(255) + ROUNDING).astype(np.uint8))


def brightness(image: Array, rng: np.random.Generator, amount: float) -> Array:
    """Add ``amount`` to the value of HSV while hue and saturation stay; black becomes gray."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.minimum(value + np.float32(amount), 1)
    return np.asarray(np.where(value > 0, image * (brighter / np.maximum(value, 1e-6)), brighter))


def contrast(image: Array, rng: np.random.Generator, factor: float) -> Array:
    """Multiply the distance of every value from its channel's mean by ``factor``."""
    mean = image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return np.asarray((image - mean) * np.float32(factor) + mean)


def saturate(image: Array, rng: np.random.Generator, factor: float, offset: float) -> Array:
    """Scale and shift the saturation of HSV.  Gray has hue 0 there, so a positive ``offset`` turns it red."""
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
