"""Pixels near the borders of classes, for the boundary IoU (Cheng et al. 2021)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.config import IGNORE_INDEX

SHARE = 0.02  # of the image's diagonal: the published distance


def boundary(mask: Tensor) -> Tensor:
    """Whether each pixel lies within 2 % of the image's diagonal of another class or of the image's border.

    (H, W) uint8 -> (H, W) bool.  It is what erosion of each class by squares would take away, for all classes at
    once: a pixel has another class nearby exactly where the smallest and the largest index in its square differ.
    Ignored pixels are no other class.
    """
    height, width = mask.shape
    distance = max(1, round(SHARE * math.hypot(height, width)))
    ignored = mask == IGNORE_INDEX
    low = _over_square(mask, distance, torch.minimum, IGNORE_INDEX)
    high = _over_square(mask.masked_fill(ignored, 0), distance, torch.maximum, 0)
    near = low != high
    for edge in (near[:distance], near[-distance:], near[:, :distance], near[:, -distance:]):
        edge.fill_(True)
    return near & ~ignored


def _over_square(values: Tensor, distance: int, choose: Callable[[Tensor, Tensor], Tensor], outside: int) -> Tensor:
    """Smallest or largest value in the square of side 2 * distance + 1 around each pixel."""
    values = F.pad(values, (distance,) * 4, value=outside)
    for axis in (0, 1):
        reach = 0  # a value is that of [i, i + reach] along the axis; doubled until the window spans the square
        while reach < 2 * distance:
            step = min(reach + 1, 2 * distance - reach)
            size = values.shape[axis] - step
            values = choose(values.narrow(axis, 0, size), values.narrow(axis, step, size))
            reach += step
    return values
