"""What stands in toytown's streets, and how it is drawn: far to near, in the light of a time of day.

Colours mislead on purpose: cars, clothes, walls, shop boards and signs share them, and the light changes from noon
to dusk.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageFilter

from segformer.data.sources.street_canvas import (
    AMBER,
    BLACK,
    BLUE,
    FAR,
    GLASS,
    GREEN,
    NEAR,
    RED,
    SCALE,
    STEEL,
    WHITE,
    Colour,
    Float32,
    Point,
    Street,
    UInt8,
    mix,
    noise,
    outline,
    patch,
    ring,
)
from segformer.errors import UserError

SKY, BUILDING, ROAD, PAVEMENT, TREE, CAR, PERSON, SIGN = range(8)
GRAIN = (0.0, 0.025, 0.0, 0.0, 0.08, 0.02, 0.03, 0.02)  # per class; road and pavement have textures of their own
WALLS: tuple[Colour, ...] = (
    (168, 92, 72), (196, 128, 96), (214, 190, 152), (226, 214, 190), (150, 146, 140), (112, 114, 120), (198, 166, 160),
    (236, 226, 204), (128, 148, 164), (160, 178, 192), (104, 128, 98), (142, 158, 118), (204, 170, 96), (120, 84, 70),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = ((122, 76, 64), (74, 76, 84), (120, 96, 80), (90, 104, 110))
EARTHS: tuple[Colour, ...] = ((178, 166, 150), (160, 158, 158), (176, 150, 136))  # slabs and, darker, bark
LEAVES: tuple[Colour, ...] = (
    (92, 136, 60), (76, 122, 66), (118, 152, 68), (64, 108, 76), (142, 154, 76), (202, 142, 56), (184, 88, 56),
    (216, 166, 180),
)  # fmt: skip
SKINS: tuple[Colour, ...] = ((240, 204, 178), (222, 176, 142), (186, 132, 98), (134, 90, 64), (92, 62, 48))
HAIRS: tuple[Colour, ...] = ((38, 30, 28), (84, 56, 38), (150, 108, 62), (204, 178, 130), (168, 164, 160))
PLATES: tuple[tuple[int, float, Colour, Colour, Colour], ...] = (  # corners, turn in corners, rim, face, glyph
    (20, 0, RED, WHITE, BLACK), (20, 0, RED, RED, WHITE), (20, 0, WHITE, BLUE, WHITE), (3, 0, RED, WHITE, BLACK),
    (3, 0.5, RED, WHITE, WHITE), (8, 0.5, WHITE, RED, WHITE), (4, 0.5, WHITE, BLUE, WHITE), (4, 0, BLACK, AMBER, BLACK),
    (4, 0.5, WHITE, GREEN, WHITE), (20, 0, STEEL, STEEL, STEEL),
)  # fmt: skip
# Outlines of cars from tail to nose, (half width, y, z); a strip of STRIPS lies between each row and the next.
CARS: tuple[tuple[Point, ...], ...] = (
    ((0.84, 0.34, -2.0), (0.88, 0.78, -2.1), (0.86, 0.98, -1.95), (0.66, 1.42, -1.4),
     (0.66, 1.45, 0.2), (0.84, 0.98, 1.0), (0.82, 0.78, 1.95), (0.82, 0.34, 2.1)),
    ((0.84, 0.34, -2.2), (0.88, 0.85, -2.3), (0.86, 0.95, -1.6), (0.66, 1.38, -0.9),
     (0.66, 1.4, 0.2), (0.84, 0.95, 1.0), (0.82, 0.75, 2.1), (0.82, 0.34, 2.25)),
    ((0.95, 0.38, -2.4), (0.98, 1.0, -2.45), (0.98, 1.25, -2.45), (0.9, 2.1, -2.35),
     (0.9, 2.1, 1.3), (0.96, 1.25, 1.95), (0.94, 0.95, 2.3), (0.92, 0.38, 2.4)),
)  # fmt: skip
Fitting = tuple[float, float, float, float, Colour]  # from u0 to u1 across and v0 to v1 along a strip
SCREEN: Fitting = (0.07, 0.93, 0.08, 0.9, GLASS)
STRIPS: tuple[tuple[float, tuple[Fitting, ...]], ...] = (  # how much light it gets, and what is on it
    (0.8, ((0, 1, 0, 0.2, BLACK), (0.02, 0.2, 0.6, 0.9, RED), (0.8, 0.98, 0.6, 0.9, RED), (0.4, 0.6, 0.3, 0.6, WHITE))),
    (0.98, ()), (1.0, (SCREEN,)), (1.15, ()), (1.0, (SCREEN,)), (1.1, ()),
    (0.84, ((0.3, 0.7, 0.12, 0.5, BLACK), (0.03, 0.24, 0.06, 0.4, WHITE), (0.76, 0.97, 0.06, 0.4, WHITE),
            (0.36, 0.64, 0.58, 0.78, WHITE), (0, 1, 0.84, 1, BLACK))),
)  # fmt: skip


def draw_sky(street: Street) -> None:
    """Cover the picture with a gradient, clouds and the glow of the sun; the rest is painted on top."""
    rng, zenith, horizon, tint = street.rng, *np.asarray((street.zenith, street.horizon, street.tint))
    width, height = (side // 4 for side in street.picture.size)
    y = np.clip(np.arange(height) * 4 / street.vanishing[1], 0, 1)[:, None, None] ** rng.uniform(0.8, 1.6)
    sky = zenith * (1 - y) + horizon * y
    clouds = np.sum([noise(rng, (3 * k, 4 * k), (height, width)) / k for k in (1, 2, 4)], axis=0)[..., None]
    cover = np.clip((clouds - rng.uniform(-0.4, 1.6)) * 0.9, 0, 1) * (1 - 0.5 * y)
    sky = sky + cover * 0.85 * (horizon * 0.55 + tint * 120 * (1 - 0.1 * clouds) - sky)
    sun_x = street.vanishing[0] / 4 - np.sign(street.shadow[0]) * rng.uniform(0.1, 0.5) * width
    away = np.hypot(np.arange(width)[None] - sun_x, np.arange(height)[:, None] - rng.uniform(0.05, 0.35) * height)
    sky += np.asarray((255, 236, 190)) * np.exp(-away / (0.16 * width))[..., None] * (0.1 + 0.5 * street.sun)
    layer = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8)).resize(street.picture.size)
    layer.putalpha(SKY)
    street.picture.paste(layer)


def draw_ground(street: Street) -> None:
    """Paint pavements with kerbs, the road, its side street and its markings."""
    street.move_to(NEAR)
    rng, road, strip = street.rng, street.road, street.strip
    grey, wide, side = rng.uniform(84, 132), (-300.0, 300.0), street.side_street
    asphalt = (grey * rng.uniform(0.95, 1.04), grey, grey * rng.uniform(0.95, 1.1))
    slab = mix((grey, grey, grey), street.pick(EARTHS), 0.75)
    paint = mix(asphalt, WHITE, 0.8)
    strip(wide, (NEAR, FAR), slab, PAVEMENT)
    for x in (-road, road):
        strip((x, 1.09 * x), (NEAR, FAR), mix(slab, WHITE, 0.4), PAVEMENT)
    strip((-road, road), (NEAR, FAR), asphalt, ROAD)
    for x in (-road, road):
        strip((x, 0.96 * x), (NEAR, FAR), mix(asphalt, BLACK, 0.5), ROAD)
        if rng.random() < 0.4:
            strip((0.9 * x, 0.87 * x), (NEAR, FAR), paint, ROAD)
    strip(wide, (side, side + 2 * road), asphalt, ROAD)
    dash = rng.choice([1.5, 3.0, FAR])
    for z in np.arange(2.0, 70.0, 2 * dash):
        strip((-0.08, 0.08), (z, min(z + dash, FAR)), paint, ROAD)
    strip((-0.94 * road, 0.94 * road), (street.crossing - 1.7, street.crossing + 1.7), asphalt, ROAD)
    for x in np.arange(-0.9 * road, 0.9 * road - 0.4, 0.95):
        strip((x, x + 0.5), (street.crossing - 1.5, street.crossing + 1.5), paint, ROAD)


def draw_backdrop(street: Street) -> None:
    """Close the view with far houses and woods."""
    street.move_to(FAR / 4)
    for x, half, high in street.rng.uniform((-140, 4, 3), (140, 10, 9), (36, 3)).tolist():
        if street.rng.random() < 0.5:
            street.disc((x, 0, FAR), 1.3 * half, high, street.pick(LEAVES[:5]), TREE)
        else:
            corners = ((x - half, 0), (x - half, 2 * high), (x + half, 2 * high), (x + half, 0))
            street.fill(((u, y, FAR) for u, y in corners), street.pick(WALLS), BUILDING)


Part = Callable[[float, float, float, float, Colour], None]  # from a0 to a1 along a wall and y0 to y1 up, metres


def draw_windows(street: Street, part: Part, length: float, floors: int, ground: float, close: bool) -> None:
    """Paint floors of windows on a wall; some are lit, the others reflect some of the sky."""
    rng = street.rng
    bays, glassy, frame = max(1, int(length / rng.uniform(1.9, 3.0))), rng.random(), street.pick((WHITE, WHITE, BLACK))
    pitch, sky = length / bays, mix(street.zenith, street.horizon, rng.random())
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
    """Paint a ground floor: glass, a door, a lettered board, posters, an awning, in any colour, also those of signs."""
    rng, board, awning = street.rng, street.colour(), street.colour()
    glass = mix(BLACK, street.horizon, rng.uniform(0.1, 0.6))
    glass = (300, 240, 168) if rng.random() < street.lamps else glass
    part(0.2, length - 0.2, 0.0, 3.3, mix(board, BLACK, 0.4))
    for a in np.arange(0.4, length - 1.6, 1.9):
        part(a, a + 1.7, 0.6, 2.5, mix(glass, BLACK, rng.uniform(0.0, 0.25)))
        if rng.random() < 0.3:
            part(a + 0.3, a + 1.1, 1.0, 2.1, street.colour())
    door = rng.uniform(0.3, length - 1.6)
    part(door, door + 1.2, 0.0, 2.5, street.colour())
    part(0.3, length - 0.3, 2.65, 3.25, board)
    for a in np.arange(length * 0.25, length * 0.75, 0.45):
        part(a, a + rng.uniform(0.15, 0.3), 2.78, 3.12, mix(board, WHITE, 0.8))
    if rng.random() < 0.5:
        for k, a in enumerate(np.arange(0.3, length - 0.6, 0.6)):
            part(a, a + 0.6, 2.0, 2.7, awning if k % 2 else mix(awning, WHITE, 0.8))


def draw_building(street: Street, side: int, z: float, length: float) -> None:
    """Paint a house beside the pavement: roof, end wall, street front; it may throw its shadow over the street."""
    rng, x, far = street.rng, side * (street.road + street.pavement), z + length
    floors, ground, rise = int(rng.choice([0, 0, 1, 1, 2, 2, 3])), rng.uniform(3.4, 4.0), rng.uniform(0.8, 2.8)
    wall, roof, close = street.pick(WALLS), street.pick(ROOFS), street.focal / z > 12 * SCALE
    top, lit, end_lit = ground + 3 * floors, street.brightness(-side), street.brightness(0)
    ridge, end, peak = x + 2.5 * side, x + 9 * side, top + rise

    def front(a0: float, a1: float, y0: float, y1: float, colour: Colour) -> None:
        street.fill(((x, y0, z + a0), (x, y0, z + a1), (x, y1, z + a1), (x, y1, z + a0)), colour, BUILDING, lit)

    def gable(a0: float, a1: float, y0: float, y1: float, colour: Colour) -> None:
        a0, a1 = x + side * a0, x + side * a1
        street.fill(((a0, y0, z), (a1, y0, z), (a1, y1, z), (a0, y1, z)), colour, BUILDING, end_lit)

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
        street.disc((x - 0.5 * side, rng.uniform(3, 4), z + 1), 0.4, 0.4, street.colour(), BUILDING)
    if side * street.shadow[0] < 0:
        street.shade(outline((x, x + street.shadow[0] * top), (z, far)), 0.45 * street.sun)


def draw_tree(street: Street, x: float, z: float) -> None:
    """Paint a trunk and a crown of many blots, light towards the sun and dark below."""
    rng, bark, leaf = street.rng, mix(street.pick(EARTHS), BLACK, 0.6), street.pick(LEAVES)
    radius, stem, tall, half = rng.uniform((0.9, 1.9, 0.8, 0.1), (1.5, 2.7, 1.6, 0.17)).tolist()
    middle = stem + 0.8 * radius * tall
    for share, lit in ((1.0, 0.85), (0.2, 1.1)):
        edge = ((-1.5, 0.0), (-0.8, 0.5), (-0.7, middle), (0.7 * share, middle), (0.8 * share, 0.5), (1.5 * share, 0.0))
        street.fill(((x + half * u, y, z) for u, y in edge), bark, TREE, lit)
    count = int(np.clip(street.focal / z * 2.2, 24, 100))
    angle, reach = rng.uniform(0, 2 * pi, count), rng.random(count) ** 0.5
    across, up, size = np.cos(angle) * reach, np.sin(angle) * reach, radius * rng.uniform(0.16, 0.36, count)
    glow = 0.8 + 0.32 * up - 0.25 * across * np.sign(street.shadow[0]) * street.sun + rng.normal(0, 0.11, count)
    for lit, u, y, r in sorted(np.stack([glow, across * radius, up * radius * tall + middle, size], -1).tolist()):
        street.disc((x + u, y, z), r, 0.85 * r, leaf, TREE, lit)
    crown = ring(x + street.shadow[0] * middle, z + street.shadow[1] * middle, radius, radius * tall)
    street.shade(crown, 0.45 * street.sun)
    street.cast(x, z, half, stem)


def draw_car(street: Street, x: float, z: float, yaw: float) -> None:
    """Paint a car; at yaw 0 it drives away from us."""
    rows, paint, c, s = CARS[int(street.rng.integers(len(CARS)))], street.colour(), cos(yaw), sin(yaw)

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
        quad, (lit, fittings) = (left[i], right[i], right[i + 1], left[i + 1]), STRIPS[i]
        if visible(quad):
            street.fill(quad, paint, CAR, lit)
            for *area, colour in fittings:
                street.fill(patch(quad, *area), colour, CAR)
    for side, edge in ((-1, left[::-1]), (1, right)):
        if not visible([edge[0], edge[7], edge[4]]):
            continue
        street.fill(edge, paint, CAR, street.brightness(side * c))
        street.fill(patch((edge[0], edge[7], edge[6], edge[1]), 0, 1, 0, 0.2), mix(paint, BLACK, 0.6), CAR)
        for u0, u1 in ((0.08, 0.46), (0.52, 0.88)):
            street.fill(patch((edge[2], edge[5], edge[4], edge[3]), u0, u1, 0.08, 0.84), GLASS, CAR)
        for along, r, colour in ((-1.4, 0.35, BLACK), (-1.4, 0.2, STEEL), (1.4, 0.35, BLACK), (1.4, 0.2, STEEL)):
            street.fill([place(side * 0.9, y, v) for v, y in ring(along, 0.35, r, r)], colour, CAR)


def draw_person(street: Street, x: float, z: float) -> None:
    """Paint someone who walks or stands: legs, arms, torso, head; perhaps a skirt or a bag."""
    rng, skin, hair = street.rng, street.pick(SKINS), street.pick(HAIRS)
    top, bottom = street.colour(), street.colour(0.6)
    tall = rng.uniform(1.58, 1.92) if rng.random() < 0.88 else rng.uniform(1.05, 1.35)
    stride, broad, turn = rng.uniform(0.01, 0.13), rng.uniform(0.1, 0.125), rng.choice([-1.0, 1.0])
    swing = stride * rng.uniform(0.4, 1.2)

    def part(points: Iterable[tuple[float, float]], colour: Colour, lit: float = 1.0) -> None:
        street.fill(((x + turn * tall * u, tall * v, z) for u, v in points), colour, PERSON, lit)

    for f, lit in ((-stride, 0.75), (stride, 0.95)):
        part([(-0.07, 0.5), (0.05, 0.5), (f + 0.035, 0.03), (f - 0.035, 0.03)], bottom, lit)
        part([(f - 0.04, 0.045), (f + 0.03, 0.05), (f + 0.075, 0.0), (f - 0.04, 0.0)], mix(bottom, BLACK, 0.7))
    if rng.random() < 0.3:
        part([(-0.07, 0.55), (0.07, 0.55), (0.13, 0.26), (-0.13, 0.26)], bottom)
    part([(-broad, 0.8), (0.05 - broad, 0.82), (-swing - 0.06, 0.43), (-swing - 0.11, 0.44)], top, 0.72)
    part([(-broad, 0.8), (-0.04, 0.84), (0.04, 0.84), (broad, 0.8), (0.085, 0.48), (-0.085, 0.48)], top)
    part([(0.02, 0.84), (broad, 0.8), (0.085, 0.48), (0.03, 0.48)], top, 0.86)
    part([(broad - 0.05, 0.81), (broad + 0.01, 0.79), (swing + 0.12, 0.43), (swing + 0.07, 0.42)], top, 1.1)
    part(ring(swing + 0.095, 0.42, 0.03, 0.03, 6), skin)
    if rng.random() < 0.35:
        part([(-broad - 0.05, 0.76), (-0.02, 0.78), (-0.02, 0.54), (-broad - 0.06, 0.56)], street.colour())
    part([(-0.03, 0.9), (0.03, 0.9), (0.03, 0.82), (-0.03, 0.82)], skin, 0.85)
    part(ring(0.0, 0.93, 0.06, 0.075), hair)
    if rng.random() < 0.65:
        part(ring(0.015, 0.915, 0.046, 0.06), skin)
    street.cast(x, z, 0.2, tall)


def draw_sign(street: Street, x: float, z: float) -> None:
    """Paint a pole with one or two plates."""
    rng, top, pole = street.rng, street.rng.uniform(2.2, 2.9), street.pick(((96, 98, 102), STEEL, (168, 168, 168)))
    for half, lit in ((0.075, 0.8), (0.03, 1.15)):
        street.fill(((x - half, 0, z), (x + half, 0, z), (x + half, top, z), (x - half, top, z)), pole, SIGN, lit)
    for y in (top, top - 0.95)[: 1 + int(rng.random() < 0.25)]:
        corners, turn, rim, face, glyph = PLATES[int(rng.integers(len(PLATES)))]
        radius = rng.uniform(0.36, 0.46) * (1.2 if corners < 5 else 1.0)
        w, h = (0.4, 0.1) if rng.random() < 0.5 else (0.1, 0.4)
        bar = [(x + radius * u, y + radius * v) for u, v in ((-w, -h), (w, -h), (w, h), (-w, h))]
        plate = (ring(x, y, radius * size, radius * size, corners, turn) for size in (1.0, 0.8))
        for edge, colour in zip((*plate, bar), (rim, face, glyph), strict=True):
            street.fill(((u, v, z) for u, v in edge), street.pick((colour,)), SIGN)
    street.cast(x, z, 0.1, top)


def along_street(rng: np.random.Generator, near: float, far: float, gap: tuple[float, float]) -> Iterator[float]:
    """Depths from near to far, in metres, at gaps that widen with the distance."""
    z = near + rng.uniform(0, gap[0])
    while z < far:
        yield z
        z += rng.uniform(*gap) * (0.5 + z / 25)


def plan_things(street: Street) -> Iterator[tuple[float, Callable[[], None]]]:
    """Depth and drawing of everything that stands in the street."""
    rng, road, junction = street.rng, street.road, street.side_street
    for side in (-1, 1):
        z = 2.0
        while z < 95:
            length = rng.uniform(6, 12)
            if junction - length - 1 < z < junction + 2 * road:
                z = junction + 2 * road + 1
            yield z + length, partial(draw_building, street, side, z, length)
            z += length + (rng.uniform(2, 8) if rng.random() < 0.4 else 0.0)
        for z in along_street(rng, 8, 60, (3.5, 8.0)):
            draw = draw_sign if rng.random() < 0.45 else draw_tree
            yield z, partial(draw, street, side * (road + rng.uniform(0.5, 0.8)), z)
        for z in along_street(rng, 7, 40, (3.0, 10.5)):
            for depth in z + 0.3 * np.arange(rng.integers(1, 4)):
                x = side * (road + rng.uniform(0.9, street.pavement - 0.3))
                yield depth, partial(draw_person, street, x, depth)
        for z in along_street(rng, 8, 70, (5.5, 13.0)):
            if abs(z - street.crossing) > 5 and abs(z - junction - road) > road + 3:
                x = side * (road - 1.1 if rng.random() < 0.5 else road * 0.45)
                yaw = rng.normal(pi if side < 0 else 0.0, 0.06 if rng.random() < 0.8 else 0.4)
                yield z, partial(draw_car, street, x, z, yaw)
        if rng.random() < 0.5:
            x, z = side * rng.uniform(2.5, 6), junction + road * (1 + 0.4 * side)
            yield z, partial(draw_car, street, x, z, side * pi / 2)
    for x in rng.uniform(-road, road, rng.integers(0, 4)):
        yield street.crossing, partial(draw_person, street, x, street.crossing + rng.uniform(-1, 1))


def ground_texture(street: Street, mask: UInt8) -> Float32:
    """Grain of asphalt and joints of slabs, fixed to the ground.  -> (H, W), about 1"""
    rows, columns = (SCALE * (np.arange(n, dtype=np.float32) + 0.5) for n in street.size)
    z = np.float32(street.focal * street.eye[1]) / np.maximum(rows - np.float32(street.vanishing[1]), 2)[:, None]
    x = (columns[None] - np.float32(street.vanishing[0])) * z / np.float32(street.focal)
    x += np.float32(street.eye[0] + 400) - np.float32(street.bend) * z * z
    grain, spots = street.rng.standard_normal((64, 64), dtype=np.float32), noise(street.rng, (24, 24), (64, 64))
    fine, coarse = (grid[(z * k).astype(int) & 63, (x * k).astype(int) & 63] for grid, k in ((grain, 16), (spots, 2)))
    joints = (mask == PAVEMENT) & (((x * 1.4) % 1 < 0.08) | ((z * 1.4) % 1 < 0.08))
    return np.asarray(1 + np.minimum(1, 12 / z) * (0.055 * fine + 0.05 * coarse - 0.16 * joints), np.float32)


def develop(street: Street) -> tuple[UInt8, UInt8]:
    """Turn the picture into image and mask: texture, shadows, bloom, colour cast, blur and sensor noise."""
    rng, (height, width) = street.rng, street.size
    mask = np.asarray(street.picture)[::SCALE, ::SCALE, 3].copy()
    photo = street.picture.convert("RGB").reduce(SCALE)
    bright = photo.reduce(4).point([max(0, level - 200) for level in range(256)] * 3)
    bloom = bright.filter(ImageFilter.GaussianBlur(3)).resize(photo.size)
    shadows = street.shadows.reduce(SCALE).filter(ImageFilter.GaussianBlur(0.8 + 0.006 * height))
    grain = noise(rng, (height // 2, width // 2), street.size) * np.asarray(GRAIN, np.float32)[mask]
    ground = ground_texture(street, mask) * (1 - np.asarray(shadows, np.float32) / 255)
    gain = np.where((mask == ROAD) | (mask == PAVEMENT), ground, 1 + grain)[..., None]
    cast = (rng.normal(1, 0.03, 3) * rng.uniform(0.92, 1.1)).astype(np.float32)
    image = np.asarray(photo, np.float32) * gain * cast + np.asarray(bloom, np.float32)
    lens = ImageFilter.GaussianBlur(rng.uniform(0, 0.6))
    soft = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).filter(lens)
    image = np.asarray(soft, np.float32) + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 5))
    return np.clip(image, 0, 255).astype(np.uint8), mask


def draw_scene(seed: int, size: tuple[int, int] = (192, 320)) -> tuple[UInt8, UInt8]:
    """(H, W, 3) uint8 image and (H, W) uint8 mask of class ids of the street that belongs to the seed."""
    if min(size) < 64:
        raise UserError(f"size must be at least (64, 64), got {size}; draw larger and crop")
    street = Street(np.random.default_rng(seed), size)
    draw_sky(street)
    draw_backdrop(street)
    draw_ground(street)
    for depth, draw in sorted(plan_things(street), key=lambda thing: -thing[0]):
        street.move_to(depth)
        draw()
    return develop(street)
