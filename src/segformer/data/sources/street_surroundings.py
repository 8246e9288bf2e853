"""Surroundings of toytown's streets: the sky, the ground, and distant houses and woods."""

import numpy as np
from PIL import Image

from segformer.data.sources.street_canvas import (
    BLACK,
    BUILDING,
    EARTHS,
    FAR,
    LEAVES,
    NEAR,
    PAVEMENT,
    ROAD,
    SKY,
    TREE,
    WALLS,
    WHITE,
    Street,
    mix,
    noise,
)


def draw_sky(street: Street) -> None:
    """Cover the whole picture with the sky: a color gradient, clouds and the glow of the sun."""
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
    """Paint the ground: pavements with curbs, the road, its side street and its markings."""
    street.move_to(NEAR)
    rng = street.rng
    road = street.road
    strip = street.strip
    gray = rng.uniform(84, 132)
    wide = (-300.0, 300.0)
    side = street.side_street
    asphalt = (gray * rng.uniform(0.95, 1.04), gray, gray * rng.uniform(0.95, 1.1))
    slab = mix((gray, gray, gray), street.pick(EARTHS), 0.75)
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
    """Paint distant houses and woods at the end of the street."""
    street.move_to(FAR / 4)
    for x, half, high in street.rng.uniform((-140, 4, 3), (140, 10, 9), (36, 3)).tolist():
        if street.rng.random() < 0.5:
            street.disc((x, 0, FAR), 1.3 * half, high, street.pick(LEAVES[:5]), TREE)
        else:
            corners = ((x - half, 0), (x - half, 2 * high), (x + half, 2 * high), (x + half, 0))
            street.fill(((u, y, FAR) for u, y in corners), street.pick(WALLS), BUILDING)
