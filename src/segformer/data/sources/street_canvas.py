"""Canvas of toytown: paints a street, given in meters, as a pinhole camera sees it.

x points to the right, y up and z ahead.  The fourth channel of the picture stores the class of each pixel.  Color
and class are always painted together, so the image and its mask agree.
"""

from collections.abc import Iterable, Sequence
from colorsys import hsv_to_rgb
from math import cos, exp, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Rgb = tuple[float, float, float]
Point = tuple[float, float, float]
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

SCALE = 2  # pixels of the picture per pixel of the image
NEAR, FAR = 1.0, 140.0  # meters ahead
# One row for each time of day: color of the zenith, color of horizon and haze, tint of everything but the sky, strength
# of the sun (0: no shadows), meters of shadow per meter of height, haze per meter, share of lit windows.
LIGHTS: tuple[tuple[Rgb, Rgb, Rgb, float, float, float, float], ...] = (
    ((62, 124, 204), (188, 214, 232), (1.04, 1.02, 0.97), 0.85, 0.6, 0.004, 0.0),
    ((88, 148, 214), (226, 226, 214), (1.08, 1.02, 0.90), 0.8, 1.1, 0.005, 0.0),
    ((104, 134, 182), (252, 208, 148), (1.14, 0.97, 0.77), 0.9, 1.7, 0.007, 0.1),
    ((158, 167, 178), (208, 210, 210), (0.94, 0.96, 0.98), 0.1, 0.5, 0.007, 0.05),
    ((58, 70, 124), (240, 158, 124), (0.80, 0.72, 0.80), 0.15, 1.5, 0.008, 0.5),
    ((188, 194, 198), (214, 216, 214), (0.93, 0.94, 0.94), 0.0, 0.5, 0.020, 0.2),
)
SKY, BUILDING, ROAD, PAVEMENT, TREE, CAR, PERSON, SIGN = range(8)
RED = (200, 42, 44)
BLUE = (40, 86, 172)
GREEN = (44, 126, 86)
AMBER = (232, 184, 52)
WHITE = (236, 234, 230)
BLACK = (36, 36, 40)
STEEL = (128, 130, 134)
GLASS = (66, 76, 88)
WALLS: tuple[Rgb, ...] = (
    (168, 92, 72), (196, 128, 96), (214, 190, 152), (226, 214, 190), (150, 146, 140), (112, 114, 120), (198, 166, 160),
    (236, 226, 204), (128, 148, 164), (160, 178, 192), (104, 128, 98), (142, 158, 118), (204, 170, 96), (120, 84, 70),
)  # fmt: skip
EARTHS: tuple[Rgb, ...] = ((178, 166, 150), (160, 158, 158), (176, 150, 136))  # of paving slabs and, darkened, of bark
LEAVES: tuple[Rgb, ...] = (
    (92, 136, 60), (76, 122, 66), (118, 152, 68), (64, 108, 76), (142, 154, 76), (202, 142, 56), (184, 88, 56),
    (216, 166, 180),
)  # fmt: skip


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """Interpolate between a and b; ``share`` is the weight of b."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def noise(rng: np.random.Generator, cells: tuple[int, int], size: tuple[int, int]) -> Float32:
    """Smooth random noise around 0, interpolated from a grid of ``cells`` (rows, columns).  -> (height, width)"""
    small = Image.fromarray(rng.standard_normal(cells, dtype=np.float32))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


class Street:
    """A street, its camera and light, and the picture that is painted of the street."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        height, width = size
        self.rng = rng
        self.size = size
        light = LIGHTS[int(rng.integers(len(LIGHTS)))]
        self.zenith, self.horizon, self.tint, self.sun, reach, self.haze, self.lamps = light
        self.road = rng.uniform(2.8, 4.3)  # half of the road's width
        self.pavement = rng.uniform(2.5, 4.1)  # width of one pavement
        self.crossing = rng.uniform(10, 22)
        self.side_street = rng.uniform(18, 60)
        self.bend = rng.normal(0, 0.0012)  # the street shifts sideways by bend * z ** 2
        self.eye = (rng.uniform(-0.7, 0.7) * self.road, rng.uniform(1.8, 2.7))
        self.vanishing = (SCALE * width * rng.uniform(0.36, 0.64), SCALE * height * rng.uniform(0.41, 0.52))
        self.focal = SCALE * (height * width) ** 0.5 * rng.uniform(0.9, 1.15)
        heading = rng.uniform(-0.9, 0.9) * pi
        length = reach * rng.uniform(0.7, 1.2)
        self.shadow = (length * sin(heading), length * cos(heading))  # x and z per meter of height
        self.picture = Image.new("RGBA", (width * SCALE, height * SCALE))
        self.shadows = Image.new("L", self.picture.size)  # shadows on the ground only
        self._draw = ImageDraw.Draw(self.picture)
        self._shade = ImageDraw.Draw(self.shadows)
        self.move_to(NEAR)

    def move_to(self, depth: float) -> None:
        """Set the depth, in meters, of everything painted next; it determines the haze."""
        haze = 1 - exp(-self.haze * depth)
        self._gain = [tint * (1 - haze) for tint in self.tint]
        self._haze = [color * haze for color in self.horizon]

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Project a point, given in meters, to a position (column, row) in the picture."""
        scale = self.focal / max(z, NEAR)
        across, down = x - self.eye[0] + self.bend * z * z, self.eye[1] - y
        return self.vanishing[0] + scale * across, self.vanishing[1] + scale * down

    def _ink(self, color: Rgb, label: int, lit: float) -> tuple[int, ...]:
        rgb = (c * gain * lit + haze for c, gain, haze in zip(color, self._gain, self._haze, strict=True))
        return (*(max(0, min(255, int(c))) for c in rgb), label)

    def fill(self, points: Iterable[Point], color: Rgb, label: int, lit: float = 1.0) -> None:
        """Paint a polygon, given in meters; ``label`` is its class and ``lit`` its brightness."""
        self._draw.polygon([self.project(*point) for point in points], fill=self._ink(color, label, lit))

    def disc(self, center: Point, rx: float, ry: float, color: Rgb, label: int, lit: float = 1.0) -> None:
        """Paint an ellipse that faces the camera; center and radii are in meters."""
        (x, y) = self.project(*center)
        scale = self.focal / center[2]
        box = (x - rx * scale, y - ry * scale, x + rx * scale, y + ry * scale)
        self._draw.ellipse(box, fill=self._ink(color, label, lit))

    def strip(self, xs: tuple[float, float], zs: tuple[float, float], color: Rgb, label: int) -> None:
        """Paint a strip of ground; ``xs`` and ``zs`` are its limits in meters."""
        self.fill(((x, 0.0, z) for x, z in outline(xs, zs)), color, label)

    def shade(self, points: Iterable[tuple[float, float]], strength: float) -> None:
        """Darken a polygon on the ground, given as (x, z) in meters."""
        self._shade.polygon([self.project(x, 0.0, z) for x, z in points], fill=int(255 * strength))

    def cast(self, x: float, z: float, half: float, height: float) -> None:
        """Paint the shadow that an upright object casts on the ground, and darken the ground around the object."""
        sx = self.shadow[0] * height
        sz = self.shadow[1] * height
        x0 = x - half
        x1 = x + half
        self.shade([(x0, z), (x1, z), (x1 + sx, z + sz), (x0 + sx, z + sz)], 0.5 * self.sun)
        self.shade(ring(x, z, 1.7 * half, 1.7 * half), 0.5)

    def brightness(self, facing: float) -> float:
        """Brightness of an upright surface; ``facing`` is the x component of its unit normal, from -1 to 1."""
        return 1.0 - self.sun * (0.1 + 0.2 * facing * float(np.sign(self.shadow[0])))

    def color(self, vivid: float = 0.85) -> Rgb:
        """Choose a random color, in 30 % of the calls a variation of a sign's color, white or gray."""
        if self.rng.random() < 0.3:
            return self.pick((RED, BLUE, GREEN, AMBER, WHITE, WHITE, STEEL))
        hue, saturation, value = self.rng.random(3)
        r, g, b = hsv_to_rgb(hue, vivid * saturation**1.3, 0.16 + 0.78 * value)
        return 255 * r, 255 * g, 255 * b

    def pick(self, rows: Sequence[Rgb]) -> Rgb:
        """Choose one of the colors at random and vary it a little."""
        r, g, b = rows[int(self.rng.integers(len(rows)))] * (self.rng.uniform(0.84, 1.12) + self.rng.normal(0, 0.03, 3))
        return float(r), float(g), float(b)


def outline(xs: tuple[float, float], zs: tuple[float, float]) -> list[tuple[float, float]]:
    """Corners (x, z) of a strip of ground, enough of them to follow the bend of the street."""
    z = np.geomspace(max(zs[0], NEAR), zs[1], 16 if zs[1] > 3 * zs[0] else 2).tolist()
    return [(xs[0], depth) for depth in z] + [(xs[1], depth) for depth in reversed(z)]


def ring(x: float, y: float, rx: float, ry: float, corners: int = 12, turn: float = 0.0) -> list[tuple[float, float]]:
    """Corners of a polygon in an ellipse, the first one on top; a ``turn`` of 1 rotates by one corner."""
    angles = [2 * pi * (i + turn) / corners for i in range(corners)]
    return [(x + rx * sin(angle), y + ry * cos(angle)) for angle in angles]


def patch(quad: Sequence[Point], u0: float, u1: float, v0: float, v1: float) -> list[Point]:
    """Corners of a part of a quadrilateral, from u0 to u1 and from v0 to v1 along its sides, which run from 0 to 1."""
    a, b, c, d = quad
    return [mix(mix(a, b, u), mix(d, c, u), v) for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]
