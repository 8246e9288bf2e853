"""Objects in toytown's streets: trees, people and signs."""

from collections.abc import Iterable
from math import pi

import numpy as np

from segformer.data.sources.street_canvas import (
    AMBER,
    BLACK,
    BLUE,
    EARTHS,
    GREEN,
    LEAVES,
    PERSON,
    RED,
    SIGN,
    STEEL,
    TREE,
    WHITE,
    Rgb,
    Street,
    mix,
    ring,
)

SKINS: tuple[Rgb, ...] = ((240, 204, 178), (222, 176, 142), (186, 132, 98), (134, 90, 64), (92, 62, 48))
HAIRS: tuple[Rgb, ...] = ((38, 30, 28), (84, 56, 38), (150, 108, 62), (204, 178, 130), (168, 164, 160))
PLATES: tuple[tuple[int, float, Rgb, Rgb, Rgb], ...] = (  # number of corners, turn; color of rim, face, glyph
    (20, 0, RED, WHITE, BLACK), (20, 0, RED, RED, WHITE), (20, 0, WHITE, BLUE, WHITE), (3, 0, RED, WHITE, BLACK),
    (3, 0.5, RED, WHITE, WHITE), (8, 0.5, WHITE, RED, WHITE), (4, 0.5, WHITE, BLUE, WHITE), (4, 0, BLACK, AMBER, BLACK),
    (4, 0.5, WHITE, GREEN, WHITE), (20, 0, STEEL, STEEL, STEEL),
)  # fmt: skip


def draw_tree(street: Street, x: float, z: float) -> None:
    """Paint a tree: a trunk, and a crown of many blots, which are lighter towards the sun and darker below."""
    rng = street.rng
    bark = mix(street.pick(EARTHS), BLACK, 0.6)
    leaf = street.pick(LEAVES)
    radius, stem, tall, half = rng.uniform((0.9, 1.9, 0.8, 0.1), (1.5, 2.7, 1.6, 0.17)).tolist()
    middle = stem + 0.8 * radius * tall
    for share, lit in ((1.0, 0.85), (0.2, 1.1)):
        edge = ((-1.5, 0.0), (-0.8, 0.5), (-0.7, middle), (0.7 * share, middle), (0.8 * share, 0.5), (1.5 * share, 0.0))
        street.fill(((x + half * u, y, z) for u, y in edge), bark, TREE, lit)
    count = int(np.clip(street.focal / z * 2.2, 24, 100))
    angle = rng.uniform(0, 2 * pi, count)
    reach = rng.random(count) ** 0.5
    across = np.cos(angle) * reach
    up = np.sin(angle) * reach
    size = radius * rng.uniform(0.16, 0.36, count)
    glow = 0.8 + 0.32 * up - 0.25 * across * np.sign(street.shadow[0]) * street.sun + rng.normal(0, 0.11, count)
    for lit, u, y, r in sorted(np.stack([glow, across * radius, up * radius * tall + middle, size], -1).tolist()):
        street.disc((x + u, y, z), r, 0.85 * r, leaf, TREE, lit)
    crown = ring(x + street.shadow[0] * middle, z + street.shadow[1] * middle, radius, radius * tall)
    street.shade(crown, 0.45 * street.sun)
    street.cast(x, z, half, stem)


def draw_person(street: Street, x: float, z: float) -> None:
    """Paint a walking or standing person, who may have a skirt or a bag."""
    rng = street.rng
    skin = street.pick(SKINS)
    hair = street.pick(HAIRS)
    top = street.color()
    bottom = street.color(0.6)
    tall = rng.uniform(1.58, 1.92) if rng.random() < 0.88 else rng.uniform(1.05, 1.35)
    stride = rng.uniform(0.01, 0.13)
    broad = rng.uniform(0.1, 0.125)
    turn = rng.choice([-1.0, 1.0])
    swing = stride * rng.uniform(0.4, 1.2)

    def part(points: Iterable[tuple[float, float]], color: Rgb, lit: float = 1.0) -> None:
        street.fill(((x + turn * tall * u, tall * v, z) for u, v in points), color, PERSON, lit)

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
        part([(-broad - 0.05, 0.76), (-0.02, 0.78), (-0.02, 0.54), (-broad - 0.06, 0.56)], street.color())
    part([(-0.03, 0.9), (0.03, 0.9), (0.03, 0.82), (-0.03, 0.82)], skin, 0.85)
    part(ring(0.0, 0.93, 0.06, 0.075), hair)
    if rng.random() < 0.65:
        part(ring(0.015, 0.915, 0.046, 0.06), skin)
    street.cast(x, z, 0.2, tall)


def draw_sign(street: Street, x: float, z: float) -> None:
    """Paint a traffic sign: a pole with one or two plates."""
    rng = street.rng
    top = street.rng.uniform(2.2, 2.9)
    pole = street.pick(((96, 98, 102), STEEL, (168, 168, 168)))
    for half, lit in ((0.075, 0.8), (0.03, 1.15)):
        street.fill(((x - half, 0, z), (x + half, 0, z), (x + half, top, z), (x - half, top, z)), pole, SIGN, lit)
    for y in (top, top - 0.95)[: 1 + int(rng.random() < 0.25)]:
        corners, turn, rim, face, glyph = PLATES[int(rng.integers(len(PLATES)))]
        radius = rng.uniform(0.36, 0.46) * (1.2 if corners < 5 else 1.0)
        w, h = (0.4, 0.1) if rng.random() < 0.5 else (0.1, 0.4)
        bar = [(x + radius * u, y + radius * v) for u, v in ((-w, -h), (w, -h), (w, h), (-w, h))]
        plate = (ring(x, y, radius * size, radius * size, corners, turn) for size in (1.0, 0.8))
        for edge, color in zip((*plate, bar), (rim, face, glyph), strict=True):
            street.fill(((u, v, z) for u, v in edge), street.pick((color,)), SIGN)
    street.cast(x, z, 0.1, top)
