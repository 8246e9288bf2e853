"""Pixels near the borders between classes, for the boundary IoU (Cheng et al. 2021)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.config import IGNORE_INDEX

SHARE = 0.02  # distance from a border as in the publication, as a share of the image's diagonal


def boundary(mask: Tensor) -> Tensor:
    """Return whether each pixel is near another class or the image's border.  (H, W) uint8 -> (H, W) bool

    Near means within 2 % of the image's diagonal.  The publication erodes the mask of each class by a square.  The
    same pixels are found here for all classes at once: another class is near if the smallest and the largest class
    index in the square around a pixel differ.  Ignored pixels do not count as another class and are never near.
    """
    distance = max(1, round(SHARE * math.hypot(*mask.shape)))
    ignored = mask == IGNORE_INDEX
    low = _over_square(mask, distance, torch.minimum, IGNORE_INDEX)
    high = _over_square(mask.masked_fill(ignored, 0), distance, torch.maximum, 0)
    near = low != high
    for edge in (near[:distance], near[-distance:], near[:, :distance], near[:, -distance:]):
        edge.fill_(True)
    return near & ~ignored


def _over_square(values: Tensor, distance: int, choose: Callable[[Tensor, Tensor], Tensor], outside: int) -> Tensor:
    """Return the smallest or largest value in the square of side 2 * distance + 1 around each pixel.

    ``choose`` is torch.minimum or torch.maximum; pixels outside the image have the value ``outside``.  (H, W) -> (H, W)
    """
    values = F.pad(values, (distance,) * 4, value=outside)
    for axis in (0, 1):
        reach = 0  # value i covers [i, i + reach] along the axis; the reach doubles until it spans the square
        while reach < 2 * distance:
            step = min(reach + 1, 2 * distance - reach)
            size = values.shape[axis] - step
            values = choose(values.narrow(axis, 0, size), values.narrow(axis, step, size))
            reach += step
    return values
