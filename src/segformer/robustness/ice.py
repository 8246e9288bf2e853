"""Drawn ice on a window pane, which the frost corruption uses if the published photographs are not available.

Feather-shaped crystals grow over clouded glass, from the edges and from random positions.  Brightness and contrast are
random and similar to those of the photographs, which have mean gray levels from 117 to 207 and standard deviations from
23 to 44 (from 10 to 25 for the fine detail).  OpenCV is imported inside the functions, so that the table of corruptions
can be read without it.
"""

from typing import Any

import numpy as np

from segformer.arrays import Array
from segformer.config import Size

LONG_SIDE = 640  # of the drawn pane in pixels, similar to the photographs; the pane is enlarged for larger images
TINT = (0.9, 1.0, 1.06)  # red, green, blue
BRANCH_ANGLE = np.pi / 3  # between the spine of a feather and its branches: ice is hexagonal


def draw_ice(size: Size, rng: np.random.Generator) -> Array:
    """Draw a pane of ice; all randomness comes from ``rng``.  -> (H, W, 3) float32 from 0 to 1"""
    import cv2

    scale = min(1.0, LONG_SIDE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    pane = 0.5 * clouds((height, width), rng)
    for share, reach in ((0.004, 0.06), (0.0015, 0.13), (0.0003, 0.25)):  # fine crystals to large feathers
        pane += feathers((height, width), share, reach, rng)
    pane = (pane - pane.mean()) / max(float(pane.std()), 1e-6)
    level = rng.uniform(0.5, 0.78)
    deviation = rng.uniform(0.1, 0.17)
    gray = cv2.resize((level + deviation * pane).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((gray[..., None] * np.array(TINT, np.float32)).clip(0, 1))


def clouds(size: Size, rng: np.random.Generator) -> Array:
    """Return a sum of smooth noise at several scales and a term that brightens the edges.  -> (H, W)"""
    import cv2

    total = np.zeros(size, np.float32)
    for cells in (3, 6, 12, 48):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32) / np.sqrt(cells)
        total += 1.5 * cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(total + 0.8 * (1 - distance_to_edge(size)) ** 3)


def distance_to_edge(size: Size) -> Array:
    """Return values that rise from 0 at the edge to 1 in the middle.  -> (H, W) float32"""
    down, right = (1 - np.abs(np.linspace(-1, 1, side, dtype=np.float32)) for side in size)
    return np.asarray(np.minimum(down[:, None], right))


def feathers(size: Size, share: float, reach: float, rng: np.random.Generator) -> Array:
    """Draw bright, feather-shaped crystals with dark rims.  -> (H, W)

    ``reach`` is the greatest length of a crystal as a share of the pane's long side.  The number of crystals is
    proportional to ``share`` and to the number of pixels; at least six are drawn.
    """
    import cv2

    layer = np.zeros(size, np.uint8)
    length = reach * max(size)
    count = max(6, round(share * size[0] * size[1] * 0.06 / reach))
    for row, column in seeds(size, count, rng):
        lines = feather((row, column), rng.uniform(0, 2 * np.pi), length * rng.uniform(0.4, 1.0), rng)
        cv2.polylines(layer, list(lines), False, int(rng.integers(90, 256)), 1, cv2.LINE_AA, 4)
    bright = layer.astype(np.float32) / 255
    glow = cv2.GaussianBlur(bright, (0, 0), max(1.0, length / 12))
    return np.asarray(2.5 * cv2.GaussianBlur(bright, (0, 0), 0.5) - 2.1 * glow)


def seeds(size: Size, count: int, rng: np.random.Generator) -> Array:
    """Choose random positions (row, column), about a third of them on the edges.  -> (count, 2)"""
    positions = rng.random((count, 2))
    on_edge = rng.random(count) < 1 / 3
    axis = rng.integers(0, 2, count)
    positions[on_edge, axis[on_edge]] = rng.integers(0, 2, int(on_edge.sum()))
    return np.asarray(positions * size)


def feather(start: tuple[float, float], angle: float, length: float, rng: np.random.Generator) -> Array:
    """Return the lines of one crystal: a spine, and branches that get shorter towards its tip.  -> (lines, 2, 2)

    A line is given by the (x, y) of its two ends, in sixteenths of a pixel.
    """
    num_branches = max(2, round(length / 3))
    along = (np.arange(num_branches) + rng.uniform(0.2, 0.8)) / num_branches
    reach = length * 0.35 * (1 - along) * rng.uniform(0.5, 1.0, num_branches)
    lines = [segments(start, angle, np.array([length]))]
    foot = np.array(start)[:, None] + length * along * np.array([[np.sin(angle)], [np.cos(angle)]])
    lines += [segments((foot[0], foot[1]), angle + side * BRANCH_ANGLE, reach) for side in (-1, 1)]
    return np.round(np.concatenate(lines) * 16).astype(np.int32)


def segments(start: tuple[Any, Any], angle: float, length: Array) -> Array:
    """Return line segments, given their starts (row, column), their common angle and their lengths.  -> (lines, 2, 2)

    A segment is given by the (x, y) of its two ends.
    """
    row, column = (np.broadcast_to(value, length.shape) for value in start)
    ends = (column + length * np.cos(angle), row + length * np.sin(angle))
    return np.stack([np.stack([column, row], -1), np.stack(ends, -1)], axis=1)
