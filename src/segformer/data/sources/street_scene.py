"""Scenes of toytown: plans the objects in a street, draws them from far to near, and turns the picture into a photo.

Colors are misleading on purpose: cars, clothes, walls, shop boards and signs share the same colors, and the light
varies between the scenes from noon to dusk.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import pi

import numpy as np
from PIL import Image, ImageFilter

from segformer.data.sources.street_buildings import draw_building
from segformer.data.sources.street_canvas import (
    PAVEMENT,
    ROAD,
    SCALE,
    Float32,
    Street,
    UInt8,
    noise,
)
from segformer.data.sources.street_cars import draw_car
from segformer.data.sources.street_surroundings import draw_backdrop, draw_ground, draw_sky
from segformer.data.sources.street_things import draw_person, draw_sign, draw_tree
from segformer.errors import UserError

GRAIN = (0.0, 0.025, 0.0, 0.0, 0.08, 0.02, 0.03, 0.02)  # noise of each class; road and pavement have textures instead


def along_street(rng: np.random.Generator, near: float, far: float, gap: tuple[float, float]) -> Iterator[float]:
    """Yield random depths from near to far, in meters, with gaps that grow with the distance."""
    z = near + rng.uniform(0, gap[0])
    while z < far:
        yield z
        z += rng.uniform(*gap) * (0.5 + z / 25)


def plan_things(street: Street) -> Iterator[tuple[float, Callable[[], None]]]:
    """Yield (depth in meters, function that draws it) for each object in the street."""
    rng = street.rng
    road = street.road
    junction = street.side_street
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
    """Texture of asphalt and paving slabs, as brightness factors around 1.  -> (H, W)"""
    rows, columns = (SCALE * (np.arange(n, dtype=np.float32) + 0.5) for n in street.size)
    z = np.float32(street.focal * street.eye[1]) / np.maximum(rows - np.float32(street.vanishing[1]), 2)[:, None]
    x = (columns[None] - np.float32(street.vanishing[0])) * z / np.float32(street.focal)
    x += np.float32(street.eye[0] + 400) - np.float32(street.bend) * z * z
    grain = street.rng.standard_normal((64, 64), dtype=np.float32)
    spots = noise(street.rng, (24, 24), (64, 64))
    fine, coarse = (grid[(z * k).astype(int) & 63, (x * k).astype(int) & 63] for grid, k in ((grain, 16), (spots, 2)))
    joints = (mask == PAVEMENT) & (((x * 1.4) % 1 < 0.08) | ((z * 1.4) % 1 < 0.08))
    return np.asarray(1 + np.minimum(1, 12 / z) * (0.055 * fine + 0.05 * coarse - 0.16 * joints), np.float32)


def develop(street: Street) -> tuple[UInt8, UInt8]:
    """Return (image, mask) of a painted street; adds texture, shadows, bloom, color cast, blur and sensor noise."""
    rng = street.rng
    (height, width) = street.size
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
    """Draw the street that a seed determines.  -> image (H, W, 3) uint8, mask (H, W) uint8 of class ids"""
    if min(size) < 64:
        raise UserError(f"size must be at least (64, 64), got {size}; draw a larger scene and crop it")
    street = Street(np.random.default_rng(seed), size)
    draw_sky(street)
    draw_backdrop(street)
    draw_ground(street)
    for depth, draw in sorted(plan_things(street), key=lambda thing: -thing[0]):
        street.move_to(depth)
        draw()
    return develop(street)
