"""Cars of toytown, in three shapes."""

from collections.abc import Sequence
from math import cos, sin

from segformer.data.sources.street_canvas import (
    BLACK,
    CAR,
    GLASS,
    RED,
    STEEL,
    WHITE,
    Point,
    Rgb,
    Street,
    mix,
    patch,
    ring,
)

# Outlines of cars from tail to nose as (half width, y, z), with one row of STRIPS between two successive corners.
CARS: tuple[tuple[Point, ...], ...] = (
    ((0.84, 0.34, -2.0), (0.88, 0.78, -2.1), (0.86, 0.98, -1.95), (0.66, 1.42, -1.4),
     (0.66, 1.45, 0.2), (0.84, 0.98, 1.0), (0.82, 0.78, 1.95), (0.82, 0.34, 2.1)),
    ((0.84, 0.34, -2.2), (0.88, 0.85, -2.3), (0.86, 0.95, -1.6), (0.66, 1.38, -0.9),
     (0.66, 1.4, 0.2), (0.84, 0.95, 1.0), (0.82, 0.75, 2.1), (0.82, 0.34, 2.25)),
    ((0.95, 0.38, -2.4), (0.98, 1.0, -2.45), (0.98, 1.25, -2.45), (0.9, 2.1, -2.35),
     (0.9, 2.1, 1.3), (0.96, 1.25, 1.95), (0.94, 0.95, 2.3), (0.92, 0.38, 2.4)),
)  # fmt: skip
Fitting = tuple[float, float, float, float, Rgb]  # u0, u1 across a strip and v0, v1 along it, and the color
SCREEN: Fitting = (0.07, 0.93, 0.08, 0.9, GLASS)
STRIPS: tuple[tuple[float, tuple[Fitting, ...]], ...] = (  # brightness and fittings
    (0.8, ((0, 1, 0, 0.2, BLACK), (0.02, 0.2, 0.6, 0.9, RED), (0.8, 0.98, 0.6, 0.9, RED), (0.4, 0.6, 0.3, 0.6, WHITE))),
    (0.98, ()), (1.0, (SCREEN,)), (1.15, ()), (1.0, (SCREEN,)), (1.1, ()),
    (0.84, ((0.3, 0.7, 0.12, 0.5, BLACK), (0.03, 0.24, 0.06, 0.4, WHITE), (0.76, 0.97, 0.06, 0.4, WHITE),
            (0.36, 0.64, 0.58, 0.78, WHITE), (0, 1, 0.84, 1, BLACK))),
)  # fmt: skip


def draw_car(street: Street, x: float, z: float, yaw: float) -> None:
    """Paint a car and its shadow; ``yaw`` is its rotation in radians, 0 for a car that drives away."""
    rows = CARS[int(street.rng.integers(len(CARS)))]
    paint = street.color()
    c = cos(yaw)
    s = sin(yaw)

    def place(across: float, up: float, along: float) -> Point:
        return x + across * c + along * s, up, z - across * s + along * c

    def visible(points: Sequence[Point]) -> bool:
        (ax, ay), (bx, by), (cx, cy) = (street.project(*point) for point in points[:3])
        return (bx - ax) * (cy - ay) < (by - ay) * (cx - ax)

    foot = [place(u, 0.0, v) for u, v in ((-0.95, -2.2), (0.95, -2.2), (0.95, 2.2), (-0.95, 2.2))]
    for share in (0.35, 0.7, 1.0, 0.0):
        sx, sz = street.shadow[0] * share, street.shadow[1] * share
        street.shade([(px + sx, pz + sz) for px, _, pz in foot], 0.45 * street.sun if share else 0.75)
    for along, u in ((-1.5, -0.7), (-1.5, 0.7), (1.5, -0.7), (1.5, 0.7)):
        corners = ((u - 0.14, 0.0), (u + 0.14, 0.0), (u + 0.14, 0.6), (u - 0.14, 0.6))
        street.fill([place(across, y, along) for across, y in corners], BLACK, CAR)
    left, right = ([place(side * half, y, along) for half, y, along in rows] for side in (-1, 1))
    for i in range(len(STRIPS)) if c < 0 else reversed(range(len(STRIPS))):
        quad = (left[i], right[i], right[i + 1], left[i + 1])
        (lit, fittings) = STRIPS[i]
        if visible(quad):
            street.fill(quad, paint, CAR, lit)
            for *area, color in fittings:
                street.fill(patch(quad, *area), color, CAR)
    for side, edge in ((-1, left[::-1]), (1, right)):
        if not visible([edge[0], edge[7], edge[4]]):
            continue
        street.fill(edge, paint, CAR, street.brightness(side * c))
        street.fill(patch((edge[0], edge[7], edge[6], edge[1]), 0, 1, 0, 0.2), mix(paint, BLACK, 0.6), CAR)
        for u0, u1 in ((0.08, 0.46), (0.52, 0.88)):
            street.fill(patch((edge[2], edge[5], edge[4], edge[3]), u0, u1, 0.08, 0.84), GLASS, CAR)
        for along, r, color in ((-1.4, 0.35, BLACK), (-1.4, 0.2, STEEL), (1.4, 0.35, BLACK), (1.4, 0.2, STEEL)):
            street.fill([place(side * 0.9, y, v) for v, y in ring(along, 0.35, r, r)], color, CAR)
