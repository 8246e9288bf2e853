from functools import cache

import numpy as np
import pytest

from segformer.data.sources.street_scene import draw_scene
from segformer.data.sources.toytown import CLASSES, PALETTE, SPLITS, Scene, open_source

BANDS = {  # per cent of the pixels, averaged over many scenes
    "sky": (12, 25),
    "building": (20, 32),
    "road": (18, 28),
    "pavement": (7, 13),
    "tree": (7, 14),
    "car": (5, 11),
    "person": (1.8, 3.5),
    "sign": (1.0, 2.0),
}


@cache
def scenes(first: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) images and (N, H, W) masks."""
    images, masks = zip(*(draw_scene(seed) for seed in range(first, first + number)), strict=True)
    return np.stack(images), np.stack(masks)


def test_every_class_has_a_color_of_its_own() -> None:
    assert len(set(PALETTE)) == len(CLASSES) == len(BANDS)


@pytest.mark.parametrize("name", CLASSES)
def test_share_of_pixels_and_of_scenes(name: str) -> None:
    _, masks = scenes(0, 80)
    share = (masks == CLASSES.index(name)).mean(axis=(1, 2))
    low, high = BANDS[name]
    assert low < 100 * share.mean() < high
    assert (share > 0.002).mean() > 0.75


def colors(images: np.ndarray) -> np.ndarray:
    """Which of 16 x 16 x 16 bins each pixel falls into.  (..., 3) -> (M,)"""
    return (images.reshape(-1, 3) // 16).astype(np.intp) @ (256, 16, 1)


def test_color_alone_does_not_solve_it() -> None:
    num_classes = len(CLASSES)
    images, masks = scenes(0, 80)
    votes = np.bincount(colors(images) * num_classes + masks.ravel(), minlength=16**3 * num_classes)
    guess = votes.reshape(-1, num_classes).argmax(axis=1)
    images, masks = scenes(1000, 40)
    pairs = masks.ravel().astype(np.intp) * num_classes + guess[colors(images)]
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    hits = confusion.diagonal()
    iou = hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)
    for name in ("car", "person", "sign"):
        assert iou[CLASSES.index(name)] < 0.15, name
    assert iou.mean() < 0.45


def test_splits_share_no_scene() -> None:
    seeds = [seed for split in SPLITS.values() for seed in split]
    assert len(set(seeds)) == len(seeds)
    source = open_source("")
    image, mask = source.samples("val")[0].read()
    assert image.shape == (192, 320, 3)
    np.testing.assert_array_equal(mask, draw_scene(SPLITS["val"][0])[1])
    assert Scene(3).name == "scene_000003"


def test_a_root_is_refused() -> None:
    with pytest.raises(ValueError, match="toytown is drawn"):
        open_source("/data")
