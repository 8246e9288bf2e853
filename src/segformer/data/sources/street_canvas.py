"""The canvas of toytown: a street in metres, seen through a pinhole camera, painted together with its classes.

x runs to the right, y up, z ahead.  The picture's fourth channel holds the class of every pixel, so image and mask
come from the same stroke and can not drift apart.
"""

from collections.abc import Iterable, Sequence
from colorsys import hsv_to_rgb
from math import cos, exp, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
Point = tuple[float, float, float]
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

SCALE = 2  # pixels of the picture per pixel of the image
NEAR, FAR = 1.0, 140.0  # metres ahead
# Times of day: zenith, horizon and haze, tint of all but the sky, strength of the sun (0: no cast shadows), metres of
# shadow per metre of height, haze per metre, share of windows that are lit.
LIGHTS: tuple[tuple[Colour, Colour, Colour, float, float, float, float], ...] = (
    ((62, 124, 204), (188, 214, 232), (1.04, 1.02, 0.97), 0.85, 0.6, 0.004, 0.0),
    ((88, 148, 214), (226, 226, 214), (1.08, 1.02, 0.90), 0.8, 1.1, 0.005, 0.0),
    ((104, 134, 182), (252, 208, 148), (1.14, 0.97, 0.77), 0.9, 1.7, 0.007, 0.1),
    ((158, 167, 178), (208, 210, 210), (0.94, 0.96, 0.98), 0.1, 0.5, 0.007, 0.05),
    ((58, 70, 124), (240, 158, 124), (0.80, 0.72, 0.80), 0.15, 1.5, 0.008, 0.5),
    ((188, 194, 198), (214, 216, 214), (0.93, 0.94, 0.94), 0.0, 0.5, 0.020, 0.2),
)
RED, BLUE, GREEN, AMBER, WHITE = (200, 42, 44), (40, 86, 172), (44, 126, 86), (232, 184, 52), (236, 234, 230)
BLACK, STEEL, GLASS = (36, 36, 40), (128, 130, 134), (66, 76, 88)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Blend `share` of b into a."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def noise(rng: np.random.Generator, cells: tuple[int, int], size: tuple[int, int]) -> Float32:
    """Smooth noise around 0 with that many cells over the (height, width)."""
    small = Image.fromarray(rng.standard_normal(cells, dtype=np.float32))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


class Street:
    """Where the street runs, who looks at it in which light, and the picture that is painted of it."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        height, width = size
        self.rng, self.size = rng, size
        light = LIGHTS[int(rng.integers(len(LIGHTS)))]
        self.zenith, self.horizon, self.tint, self.sun, reach, self.haze, self.lamps = light
        self.road, self.pavement = rng.uniform(2.8, 4.3), rng.uniform(2.5, 4.1)  # half the road, one pavement
        self.crossing, self.side_street = rng.uniform(10, 22), rng.uniform(18, 60)
        self.bend = rng.normal(0, 0.0012)  # the street swerves by bend * z ** 2
        self.eye = (rng.uniform(-0.7, 0.7) * self.road, rng.uniform(1.8, 2.7))
        self.vanishing = (SCALE * width * rng.uniform(0.36, 0.64), SCALE * height * rng.uniform(0.41, 0.52))
        self.focal = SCALE * (height * width) ** 0.5 * rng.uniform(0.9, 1.15)
        heading, length = rng.uniform(-0.9, 0.9) * pi, reach * rng.uniform(0.7, 1.2)
        self.shadow = (length * sin(heading), length * cos(heading))  # x and z per metre of height
        self.picture = Image.new("RGBA", (width * SCALE, height * SCALE))
        self.shadows = Image.new("L", self.picture.size)  # they fall on the ground only
        self._draw, self._shade = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.shadows)
        self.move_to(NEAR)

    def move_to(self, depth: float) -> None:
        """Put what is painted next behind that many metres of haze."""
        haze = 1 - exp(-self.haze * depth)
        self._gain = [tint * (1 - haze) for tint in self.tint]
        self._haze = [colour * haze for colour in self.horizon]

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Pixel of the picture that shows the point."""
        scale = self.focal / max(z, NEAR)
        across, down = x - self.eye[0] + self.bend * z * z, self.eye[1] - y
        return self.vanishing[0] + scale * across, self.vanishing[1] + scale * down

    def _ink(self, colour: Colour, label: int, lit: float) -> tuple[int, ...]:
        rgb = (c * gain * lit + haze for c, gain, haze in zip(colour, self._gain, self._haze, strict=True))
        return (*(max(0, min(255, int(c))) for c in rgb), label)

    def fill(self, points: Iterable[Point], colour: Colour, label: int, lit: float = 1.0) -> None:
        """Paint a polygon, given in metres."""
        self._draw.polygon([self.project(*point) for point in points], fill=self._ink(colour, label, lit))

    def disc(self, centre: Point, rx: float, ry: float, colour: Colour, label: int, lit: float = 1.0) -> None:
        """Paint an ellipse that faces us; radii in metres."""
        (x, y), scale = self.project(*centre), self.focal / centre[2]
        box = (x - rx * scale, y - ry * scale, x + rx * scale, y + ry * scale)
        self._draw.ellipse(box, fill=self._ink(colour, label, lit))

    def strip(self, xs: tuple[float, float], zs: tuple[float, float], colour: Colour, label: int) -> None:
        """Paint a part of the ground."""
        self.fill(((x, 0.0, z) for x, z in outline(xs, zs)), colour, label)

    def shade(self, points: Iterable[tuple[float, float]], strength: float) -> None:
        """Darken a polygon on the ground, given as (x, z)."""
        self._shade.polygon([self.project(x, 0.0, z) for x, z in points], fill=int(255 * strength))

    def cast(self, x: float, z: float, half: float, height: float) -> None:
        """Lay the shadow of something upright on the ground, and the dark spot where it stands."""
        sx, sz, x0, x1 = self.shadow[0] * height, self.shadow[1] * height, x - half, x + half
        self.shade([(x0, z), (x1, z), (x1 + sx, z + sz), (x0 + sx, z + sz)], 0.5 * self.sun)
        self.shade(ring(x, z, 1.7 * half, 1.7 * half), 0.5)

    def brightness(self, facing: float) -> float:
        """How much light an upright face gets whose normal points along x by `facing`, -1 to 1."""
        return 1.0 - self.sun * (0.1 + 0.2 * facing * float(np.sign(self.shadow[0])))

    def colour(self, vivid: float = 0.85) -> Colour:
        """Any colour: greys, muted ones and those of signs included."""
        if self.rng.random() < 0.3:
            return self.pick((RED, BLUE, GREEN, AMBER, WHITE, WHITE, STEEL))
        hue, saturation, value = self.rng.random(3)
        r, g, b = hsv_to_rgb(hue, vivid * saturation**1.3, 0.16 + 0.78 * value)
        return 255 * r, 255 * g, 255 * b

    def pick(self, rows: Sequence[Colour]) -> Colour:
        """One of the colours, a little off."""
        r, g, b = rows[int(self.rng.integers(len(rows)))] * (self.rng.uniform(0.84, 1.12) + self.rng.normal(0, 0.03, 3))
        return float(r), float(g), float(b)


def outline(xs: tuple[float, float], zs: tuple[float, float]) -> list[tuple[float, float]]:
    """Walk around a strip of ground as (x, z), with enough corners to follow the bend."""
    z = np.geomspace(max(zs[0], NEAR), zs[1], 16 if zs[1] > 3 * zs[0] else 2).tolist()
    return [(xs[0], depth) for depth in z] + [(xs[1], depth) for depth in reversed(z)]


def ring(x: float, y: float, rx: float, ry: float, corners: int = 12, turn: float = 0.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon, the first one on top if not turned."""
    angles = [2 * pi * (i + turn) / corners for i in range(corners)]
    return [(x + rx * sin(angle), y + ry * cos(angle)) for angle in angles]


def patch(quad: Sequence[Point], u0: float, u1: float, v0: float, v1: float) -> list[Point]:
    """Cut a part out of a quad; u runs along its first side, v along its second."""
    a, b, c, d = quad
    return [mix(mix(a, b, u), mix(d, c, u), v) for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]
