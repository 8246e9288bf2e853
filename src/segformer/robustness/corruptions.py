"""The sixteen corruptions of Cityscapes-C (Table 5) at five severities, for images of at least 32 x 32 pixels.

Formulas and constants are those of ImageNet-C (Hendrycks & Dietterich, ICLR 2019), generalized to images of other sizes
as in Michaelis et al. (2019).  To add a corruption, write a function in the file of its group and add a row to
CORRUPTIONS.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.errors import UserError
from segformer.robustness.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur
from segformer.robustness.digital import brightness, contrast, jpeg_compression, saturate, to_uint8
from segformer.robustness.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from segformer.robustness.weather import drawn_frost, fog, photographed_frost, snow, spatter
from segformer.validation import check_choice

SEVERITIES = (1, 2, 3, 4, 5)
NOISE_SEVERITIES = (1, 2, 3)
MIN_SIDE = 32  # pixels


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption: a column of Table 5."""

    group: str
    """Group of columns in Table 5: blur, noise, digital or weather."""
    change: Callable[..., Array]
    """Corrupts an image, given a random generator and the settings of a severity.  (H, W, 3) float32, 0 to 1"""
    settings: Sequence[Sequence[Any]]
    """For each severity, mildest first, the arguments of ``change`` that follow the random generator."""
    heading: str
    """Heading of the column in Table 5."""
    from_photographs: Callable[..., Array] | None = None
    """Function used instead of ``change`` if photographs are given; its keyword ``folder`` is their folder."""
    is_random: bool = True
    """Whether the result depends on the random generator."""

    @property
    def severities_in_mean(self) -> tuple[int, ...]:
        """Severities over which scores are averaged, as in Cityscapes-C: 1 to 3 for noise, otherwise 1 to 5."""
        return NOISE_SEVERITIES if self.group == "noise" else SEVERITIES


CORRUPTIONS: dict[str, Corruption] = {
    "motion_blur": Corruption("blur", motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), "Motion"),
    "defocus_blur": Corruption(
        "blur", defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), "Defoc", is_random=False
    ),
    "glass_blur": Corruption(
        "blur", glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)), "Glass"
    ),
    "gaussian_blur": Corruption("blur", gaussian_blur, ((1,), (2,), (3,), (4,), (6,)), "Gauss", is_random=False),
    "gaussian_noise": Corruption("noise", gaussian_noise, ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)), "Gauss"),
    "impulse_noise": Corruption("noise", impulse_noise, ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)), "Impul"),
    "shot_noise": Corruption("noise", shot_noise, ((60,), (25,), (12,), (5,), (3,)), "Shot"),
    "speckle_noise": Corruption("noise", speckle_noise, ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)), "Speck"),
    "brightness": Corruption(
        "digital", brightness, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)), "Bright", is_random=False
    ),
    "contrast": Corruption("digital", contrast, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)), "Contr", is_random=False),
    "saturate": Corruption(
        "digital", saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)), "Satur", is_random=False
    ),
    "jpeg_compression": Corruption(
        "digital", jpeg_compression, ((25,), (18,), (15,), (10,), (7,)), "JPEG", is_random=False
    ),
    "snow": Corruption(
        "weather",
        snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "Snow",
    ),
    "spatter": Corruption(
        "weather",
        spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ),
        "Spatt",
    ),
    "fog": Corruption("weather", fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), "Fog"),
    "frost": Corruption(
        "weather",
        drawn_frost,
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "Frost",
        from_photographs=photographed_frost,
    ),
}
"""All corruptions by name, in the order of Table 5; code that lists, groups or shows corruptions reads this table."""


def corruption_groups() -> dict[str, tuple[str, ...]]:
    """Return the names of the corruptions in each group, in the order of CORRUPTIONS."""
    groups: dict[str, tuple[str, ...]] = {}
    for name, row in CORRUPTIONS.items():
        groups[row.group] = (*groups.get(row.group, ()), name)
    return groups


def corruption_names() -> tuple[str, ...]:
    """Return the names of all corruptions, group after group."""
    return tuple(name for names in corruption_groups().values() for name in names)


def display_name(name: str) -> str:
    """Return the name of a corruption as it is written in a sentence.

    >>> display_name("motion_blur")
    'motion blur'
    """
    return name.replace("_", " ").replace("jpeg", "JPEG").replace("gaussian", "Gaussian")


def corrupt(image: Array, name: str, severity: int, rng: np.random.Generator, *, frost: Path | None = None) -> Array:
    """Apply the named corruption to an image at a severity from 1 to 5.  (H, W, 3) uint8 -> (H, W, 3) uint8

    The result depends only on the arguments.  ``frost`` is a folder with the frost photographs of ImageNet-C; if it
    is None, the frost corruption draws the ice.  Raises a UserError for an unknown name or severity, or an
    image smaller than 32 x 32.
    """
    check_choice("corruption", name, corruption_names())
    if severity not in SEVERITIES:
        raise UserError(f"severity must be from 1 to 5, got {severity}")
    if min(image.shape[:2]) < MIN_SIDE:
        raise UserError(
            f"an image to corrupt must be at least {MIN_SIDE} x {MIN_SIDE}, got {image.shape[0]} x {image.shape[1]}"
        )
    row = CORRUPTIONS[name]
    change = row.change
    if frost is not None and row.from_photographs is not None:
        change = partial(row.from_photographs, folder=frost)
    pixels = image.astype(np.float32) / 255
    with opencv_in_one_thread():
        return to_uint8(change(pixels, rng, *row.settings[severity - 1]))


@contextmanager
def opencv_in_one_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads in the block: its thread pool does not work in forked worker processes."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
