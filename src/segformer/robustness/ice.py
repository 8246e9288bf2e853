"""Ice on a window pane, drawn: what frost lays over an image where the published photographs are not at hand.

Feathers of crystals grow from the edges and from seeds everywhere, over clouded glass.  Level, contrast and tint are
drawn from the range of the photographs (means 117-207 of 255, deviations 23-44, fine detail of deviation 10-25).
"""

from typing import Any

import cv2
import numpy as np

from segformer.arrays import Array
from segformer.config import Size

LONG_SIDE = 640  # of the pane as it is drawn, near the photographs' own sizes; larger images get it enlarged
TINT = (0.9, 1.0, 1.06)  # red, green, blue
SPREAD = np.pi / 3  # between the spine of a feather and its branches: ice is hexagonal


def draw_ice(size: Size, rng: np.random.Generator) -> Array:
    """Return a pane (H, W, 3) float32, 0-1, a function of the generator alone."""
    scale = min(1.0, LONG_SIDE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    pane = 0.5 * clouds((height, width), rng)
    for share, reach in ((0.004, 0.06), (0.0015, 0.13), (0.0003, 0.25)):  # fine crystals to large feathers
        pane += feathers((height, width), share, reach, rng)
    pane = (pane - pane.mean()) / max(float(pane.std()), 1e-6)
    level, deviation = rng.uniform(0.5, 0.78), rng.uniform(0.1, 0.17)
    grey = cv2.resize((level + deviation * pane).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((grey[..., None] * np.array(TINT, np.float32)).clip(0, 1))


def clouds(size: Size, rng: np.random.Generator) -> Array:
    """Smooth noise of several scales, brighter towards the edges of the pane.  -> (H, W) of deviation about 1"""
    total = np.zeros(size, np.float32)
    for cells in (3, 6, 12, 48):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32) / np.sqrt(cells)
        total += 1.5 * cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(total + 0.8 * (1 - distance_to_edge(size)) ** 3)


def distance_to_edge(size: Size) -> Array:
    """0 at the edge, 1 in the middle.  -> (H, W) float32"""
    down, right = (1 - np.abs(np.linspace(-1, 1, side, dtype=np.float32)) for side in size)
    return np.asarray(np.minimum(down[:, None], right))


def feathers(size: Size, share: float, reach: float, rng: np.random.Generator) -> Array:
    """Bright crystals with dark rims; ``share`` of the pixels are seeds, ``reach`` of the long side their length."""
    layer = np.zeros(size, np.uint8)
    length = reach * max(size)
    count = max(6, round(share * size[0] * size[1] * 0.06 / reach))
    for row, column in starts(size, count, rng):
        lines = feather((row, column), rng.uniform(0, 2 * np.pi), length * rng.uniform(0.4, 1.0), rng)
        cv2.polylines(layer, list(lines), False, int(rng.integers(90, 256)), 1, cv2.LINE_AA, 4)
    bright = layer.astype(np.float32) / 255
    glow = cv2.GaussianBlur(bright, (0, 0), max(1.0, length / 12))
    return np.asarray(2.5 * cv2.GaussianBlur(bright, (0, 0), 0.5) - 2.1 * glow)


def starts(size: Size, count: int, rng: np.random.Generator) -> Array:
    """Seeds (count, 2) in rows and columns: a third of them on the edges."""
    places = rng.random((count, 2))
    on_edge = rng.random(count) < 1 / 3
    axis = rng.integers(0, 2, count)
    places[on_edge, axis[on_edge]] = rng.integers(0, 2, int(on_edge.sum()))
    return np.asarray(places * size)


def feather(start: tuple[float, float], angle: float, length: float, rng: np.random.Generator) -> Array:
    """A spine with branches, shorter towards the tip.  -> (lines, 2, 2) of x, y in sixteenths of a pixel"""
    num_branches = max(2, round(length / 3))
    along = (np.arange(num_branches) + rng.uniform(0.2, 0.8)) / num_branches
    reach = length * 0.35 * (1 - along) * rng.uniform(0.5, 1.0, num_branches)
    lines = [line(start, angle, np.array([length]))]
    foot = np.array(start)[:, None] + length * along * np.array([[np.sin(angle)], [np.cos(angle)]])
    lines += [line((foot[0], foot[1]), angle + side * SPREAD, reach) for side in (-1, 1)]
    return np.round(np.concatenate(lines) * 16).astype(np.int32)


def line(start: tuple[Any, Any], angle: float, length: Array) -> Array:
    """Lines from (row, column) at an angle.  -> (lines, 2, 2) of x, y"""
    row, column = (np.broadcast_to(value, length.shape) for value in start)
    ends = (column + length * np.cos(angle), row + length * np.sin(angle))
    return np.stack([np.stack([column, row], -1), np.stack(ends, -1)], axis=1)
