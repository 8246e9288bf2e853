import errno
import json
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from PIL import Image

from segformer.config import default_palette
from segformer.data.masks import read_mask
from segformer.errors import UserError
from segformer.segmentation import Output, Segmentation, colorize

CLASSES = ("road", "tree", "sky")
PALETTE = ((128, 64, 128), (0, 200, 10), (1, 2, 3))


def segmentation(**changes: Any) -> Segmentation:
    """Return a mask (6, 9): two rows of each class, with an image and scores."""
    mask = np.repeat(np.arange(3, dtype=np.uint8), 2)[:, None].repeat(9, axis=1)
    scores = np.eye(3, dtype=np.float32)[mask].transpose(2, 0, 1) * 0.7 + 0.1
    image = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    return Segmentation(
        **{"mask": mask, "classes": CLASSES, "palette": PALETTE, "image": image, "scores": scores} | changes
    )


def of_mask(mask: np.ndarray) -> Segmentation:
    return Segmentation(mask, CLASSES, PALETTE)


def test_mask_is_an_index_png_with_the_palette(tmp_path: Path) -> None:
    made = segmentation()
    assert made.save(tmp_path / "a") == [tmp_path / "a.png"]
    image = Image.open(tmp_path / "a.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), made.mask)
    assert image.getpalette()[:9] == [value for color in PALETTE for value in color]
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), made.colors())
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), made.mask)


def test_a_mask_of_150_classes_keeps_its_indices(tmp_path: Path) -> None:
    mask = np.arange(150, dtype=np.uint8).reshape(10, 15)
    made = Segmentation(mask, tuple(f"c{k}" for k in range(150)), default_palette(150))
    made.save(tmp_path / "a")
    image = Image.open(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(image), mask)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")).reshape(-1, 3), default_palette(150))


def test_more_than_256_classes_make_a_16_bit_png(tmp_path: Path) -> None:
    mask = np.arange(300, dtype=np.uint16).reshape(15, 20)
    made = Segmentation(mask, tuple(f"c{k}" for k in range(300)), default_palette(300))
    made.save(tmp_path / "a")
    assert Image.open(tmp_path / "a.png").mode.startswith("I;16")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), mask)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), mask)
    np.testing.assert_array_equal(made.colors()[-1, -1], default_palette(300)[299])


@pytest.mark.parametrize(("given", "file"), [("a.png", "a.png"), ("a.v2", "a.v2.png"), ("a.jpg", "a.jpg.png")])
def test_where_a_mask_goes(tmp_path: Path, given: str, file: str) -> None:
    assert segmentation().save(tmp_path / "below" / given) == [tmp_path / "below" / file]
    assert [p.name for p in (tmp_path / "below").iterdir()] == [file]


def test_every_output(tmp_path: Path) -> None:
    made = segmentation()
    outputs: tuple[Output, ...] = ("mask", "overlay", "polygons", "scores")
    names = ["a.png", "a_overlay.png", "a_polygons.json", "a_scores.npz"]
    assert made.save(str(tmp_path / "a"), outputs) == [tmp_path / name for name in names]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a_overlay.png")), made.overlay())
    assert json.loads((tmp_path / "a_polygons.json").read_text()) == made.polygons()
    with np.load(tmp_path / "a_scores.npz") as saved:
        assert saved["scores"].shape == (3, 6, 9)
        np.testing.assert_allclose(saved["scores"], made.scores, atol=1e-3)


def test_overlay_worked_by_hand() -> None:
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    mask = np.array([[0, 0, 1, 1]] * 4, dtype=np.uint8)
    overlay = Segmentation(mask, ("a", "b"), ((200, 0, 0), (0, 0, 250)), image).overlay(0.5)
    assert overlay.shape == image.shape
    assert overlay.dtype == np.uint8
    np.testing.assert_array_equal(overlay[0, 0], [150, 50, 50])
    np.testing.assert_array_equal(overlay[0, 3], [50, 50, 175])
    np.testing.assert_array_equal(overlay[0, 2], [183, 183, 227])  # the border: 0.35 of the color, 0.65 white
    np.testing.assert_array_equal(image, 100)


def test_overlay_of_opacity_0_is_the_image_but_for_borders() -> None:
    made = segmentation(mask=np.zeros((6, 9), dtype=np.uint8))
    np.testing.assert_array_equal(made.overlay(0.0), made.image)
    np.testing.assert_array_equal(made.overlay(1.0), made.colors())


@pytest.mark.parametrize("opacity", [-0.1, 1.1])
def test_an_opacity_out_of_bounds(opacity: float) -> None:
    with pytest.raises(ValueError, match=f"opacity must be between 0 and 1, got {opacity}"):
        segmentation().overlay(opacity)


def test_what_was_not_given_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="overlay needs the image"):
        segmentation(image=None).save(tmp_path / "a", ["overlay"])
    with pytest.raises(ValueError, match="scores were not computed"):
        segmentation(scores=None).save(tmp_path / "a", ["scores"])
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_output(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'overlay'"):
        segmentation().save(tmp_path / "a", ["overlays"])  # type: ignore[list-item]


def test_shares_are_sorted_and_leave_out_what_does_not_occur() -> None:
    shares = of_mask(np.array([[2, 2, 0], [2, 2, 0]], dtype=np.uint8)).shares()
    assert list(shares.items()) == [("sky", pytest.approx(4 / 6)), ("road", pytest.approx(2 / 6))]


def test_colors_beyond_the_palette_are_black() -> None:
    colors = colorize(np.array([[0, 1], [2, 255]], dtype=np.uint8), PALETTE)
    np.testing.assert_array_equal(colors, [[PALETTE[0], PALETTE[1]], [PALETTE[2], (0, 0, 0)]])


def ring() -> np.ndarray:
    """A 10 x 12 block of class 1 with a hole of 4 x 5, apart from it a block of 5 x 6 of class 2."""
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[4:14, 3:15] = 1
    mask[7:11, 6:11] = 0
    mask[20:25, 30:36] = 2
    return mask


def rasterize(region: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Fill the polygon, and clear what lies inside of a hole's outline (the outline itself is of the region)."""
    filled = np.zeros(shape, dtype=np.uint8)
    cv2.fillPoly(filled, [np.array(region["polygon"], dtype=np.int32)], 1)
    for hole in region["holes"]:
        outline = np.array(hole, dtype=np.float32)
        for y, x in np.argwhere(filled):
            if cv2.pointPolygonTest(outline, (float(x), float(y)), False) > 0:
                filled[y, x] = 0
    return filled.astype(bool)


def test_polygons_and_holes_outline_the_regions() -> None:
    mask = ring()
    regions = of_mask(mask).polygons(min_area=1)
    by_class: dict[str, list[dict[str, Any]]] = {name: [r for r in regions if r["class"] == name] for name in CLASSES}
    (block,), (other,) = by_class["tree"], by_class["sky"]
    assert sorted(map(tuple, block["polygon"])) == [(3, 4), (3, 13), (14, 4), (14, 13)]  # x, y
    assert len(block["holes"]) == 1
    assert other["holes"] == []
    np.testing.assert_array_equal(rasterize(block, mask.shape), mask == 1)
    np.testing.assert_array_equal(rasterize(other, mask.shape), mask == 2)
    outer, inner = sorted(by_class["road"], key=lambda region: -region["area"])
    assert len(outer["holes"]) == 2
    assert inner["holes"] == []


def test_areas_are_in_pixels() -> None:
    regions = of_mask(ring()).polygons()
    areas = sorted((region["class"], region["area"]) for region in regions)
    assert areas == [("road", 20), ("road", 30 * 40 - 120 - 30), ("sky", 30), ("tree", 120 - 20)]


def test_small_regions_are_left_out_by_their_number_of_pixels() -> None:
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[2:6, 2:6] = 1  # 16 pixels
    mask[10:13, 10:15] = 1  # 15 pixels
    mask[20, 5:55] = 2  # a wire, 50 pixels long and 1 high
    kept = [region["class"] for region in of_mask(mask).polygons(min_area=16)]
    assert sorted(kept) == ["road", "sky", "tree"]


def test_regions_that_touch_at_a_corner_only() -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[2:8, 2:8] = 1
    mask[8:14, 8:14] = 1
    trees = [region for region in of_mask(mask).polygons() if region["class"] == "tree"]
    covered = np.any([rasterize(region, mask.shape) for region in trees], axis=0)
    np.testing.assert_array_equal(covered, mask == 1)


def full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("output", ["mask", "overlay", "polygons", "scores"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_the_old_file_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Output, existing: bool
) -> None:
    if existing:
        segmentation(scores=segmentation().scores + 1).save(tmp_path / "a", [output])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match=re.escape(str(tmp_path)) + ".*MiB free"):
        segmentation().save(tmp_path / "a", [output])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
