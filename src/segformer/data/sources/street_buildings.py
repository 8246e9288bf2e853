"""Buildings of toytown: walls, windows, roofs and shops."""

from collections.abc import Callable

import numpy as np

from segformer.data.sources.street_canvas import (
    BLACK,
    BUILDING,
    SCALE,
    WALLS,
    WHITE,
    Rgb,
    Street,
    mix,
    outline,
)

ROOFS: tuple[Rgb, ...] = ((122, 76, 64), (74, 76, 84), (120, 96, 80), (90, 104, 110))


Part = Callable[[float, float, float, float, Rgb], None]  # paints from a0 to a1 along a wall and y0 to y1 up, in meters


def draw_windows(street: Street, part: Part, length: float, floors: int, ground: float, close: bool) -> None:
    """Paint windows on each floor of a wall; some are lit, and the others reflect the sky."""
    rng = street.rng
    bays = max(1, int(length / rng.uniform(1.9, 3.0)))
    glassy = rng.random()
    frame = street.pick((WHITE, WHITE, BLACK))
    pitch = length / bays
    sky = mix(street.zenith, street.horizon, rng.random())
    low, high, half = (0.3, 2.75, pitch * 0.46) if glassy > 0.8 else (0.75, 2.35, min(0.62, pitch * 0.32))
    for y in (ground + 3.0 * floor for floor in range(floors)):
        for a in (pitch * (bay + 0.5) for bay in range(bays)):
            glass = mix((46, 54, 64), sky, glassy * rng.uniform(0.5, 1.0))
            glass = (330, 262, 176) if rng.random() < street.lamps else glass
            if close:
                part(a - half - 0.12, a + half + 0.12, y + low - 0.2, y + high + 0.12, frame)
            part(a - half, a + half, y + low, y + high, glass)
            if close:
                part(a - half, a + half, y + high - 0.4, y + high, mix(glass, BLACK, 0.35))
                part(a - 0.05, a + 0.05, y + low, y + high, frame)


def draw_shop(street: Street, part: Part, length: float) -> None:
    """Paint a shop on the ground floor: windows, a door, a lettered board, posters and an awning, in random colors."""
    rng = street.rng
    board = street.color()
    awning = street.color()
    glass = mix(BLACK, street.horizon, rng.uniform(0.1, 0.6))
    glass = (300, 240, 168) if rng.random() < street.lamps else glass
    part(0.2, length - 0.2, 0.0, 3.3, mix(board, BLACK, 0.4))
    for a in np.arange(0.4, length - 1.6, 1.9):
        part(a, a + 1.7, 0.6, 2.5, mix(glass, BLACK, rng.uniform(0.0, 0.25)))
        if rng.random() < 0.3:
            part(a + 0.3, a + 1.1, 1.0, 2.1, street.color())
    door = rng.uniform(0.3, length - 1.6)
    part(door, door + 1.2, 0.0, 2.5, street.color())
    part(0.3, length - 0.3, 2.65, 3.25, board)
    for a in np.arange(length * 0.25, length * 0.75, 0.45):
        part(a, a + rng.uniform(0.15, 0.3), 2.78, 3.12, mix(board, WHITE, 0.8))
    if rng.random() < 0.5:
        for k, a in enumerate(np.arange(0.3, length - 0.6, 0.6)):
            part(a, a + 0.6, 2.0, 2.7, awning if k % 2 else mix(awning, WHITE, 0.8))


def draw_building(street: Street, side: int, z: float, length: float) -> None:
    """Paint a house beside the pavement: roof, end wall and front, and the shadow if it falls on the street."""
    rng = street.rng
    x = side * (street.road + street.pavement)
    far = z + length
    floors = int(rng.choice([0, 0, 1, 1, 2, 2, 3]))
    ground = rng.uniform(3.4, 4.0)
    rise = rng.uniform(0.8, 2.8)
    wall = street.pick(WALLS)
    roof = street.pick(ROOFS)
    close = street.focal / z > 12 * SCALE
    top = ground + 3 * floors
    lit = street.brightness(-side)
    end_lit = street.brightness(0)
    ridge = x + 2.5 * side
    end = x + 9 * side
    peak = top + rise

    def front(a0: float, a1: float, y0: float, y1: float, color: Rgb) -> None:
        street.fill(((x, y0, z + a0), (x, y0, z + a1), (x, y1, z + a1), (x, y1, z + a0)), color, BUILDING, lit)

    def gable(a0: float, a1: float, y0: float, y1: float, color: Rgb) -> None:
        a0, a1 = x + side * a0, x + side * a1
        street.fill(((a0, y0, z), (a1, y0, z), (a1, y1, z), (a0, y1, z)), color, BUILDING, end_lit)

    street.fill(((x, top, z), (x, top, far), (ridge, peak, far), (ridge, peak, z)), roof, BUILDING, lit)
    street.fill(((x, top, z), (ridge, peak, z), (end, peak, z), (end, top, z)), roof, BUILDING, 0.9 * end_lit)
    gable(0, 9, 0, top, mix(wall, roof, 0.2))
    draw_windows(street, gable, 9, floors, ground, False)
    front(0, length, 0, top, wall)
    for y in np.arange(0.4, top, 0.4) if close else ():
        front(0, length, y, y + 0.05, mix(wall, BLACK, 0.14))
    front(0, length, top - 0.35, top, mix(wall, WHITE, 0.4))
    draw_windows(street, front, length, floors, ground, close)
    draw_shop(street, front, length)
    if rng.random() < 0.4:
        street.disc((x - 0.5 * side, rng.uniform(3, 4), z + 1), 0.4, 0.4, street.color(), BUILDING)
    if side * street.shadow[0] < 0:
        street.shade(outline((x, x + street.shadow[0] * top), (z, far)), 0.45 * street.sun)
