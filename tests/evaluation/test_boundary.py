import cv2
import numpy as np
import pytest
import torch

from segformer.evaluation.boundary import boundary


def by_erosion(mask: np.ndarray, distance: int) -> np.ndarray:
    """The published way: each class less its erosion, the image's border counted as another class."""
    near = np.zeros(mask.shape, dtype=bool)
    for k in set(np.unique(mask)) - {255}:
        own = np.pad((mask == k) | (mask == 255), 1).astype(np.uint8)  # what is ignored is no other class
        own[0], own[-1], own[:, 0], own[:, -1] = 0, 0, 0, 0
        eroded = cv2.erode(own, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
        near |= (mask == k) & (eroded == 0)
    return near


@pytest.mark.parametrize(("size", "distance"), [((60, 80), 2), ((200, 300), 7), ((33, 20), 1), ((12, 500), 10)])
@pytest.mark.parametrize("ignored", [0.0, 0.02])
def test_equals_the_erosion_of_each_class(size: tuple[int, int], distance: int, ignored: float) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 6, (-(-size[0] // 16), -(-size[1] // 16)), dtype=np.uint8)
    mask = blocks.repeat(16, axis=0).repeat(16, axis=1)[: size[0], : size[1]].copy()
    mask[rng.random(size) < ignored] = 255
    np.testing.assert_array_equal(boundary(torch.from_numpy(mask)).numpy(), by_erosion(mask, distance))


def test_a_square_worked_by_hand() -> None:
    mask = torch.zeros(50, 50, dtype=torch.uint8)
    mask[20:40, 20:40] = 1  # 2 % of the diagonal of 70.7 is 1 pixel
    near = boundary(mask)
    assert near.sum() == 50 * 4 - 4 + (20 * 4 - 4) + (22 * 4 - 4)  # the image's border, and both sides of the square's
    assert near[20, 20]
    assert not near[21, 21]


def test_a_mask_of_ignored_pixels_has_no_boundary() -> None:
    assert not boundary(torch.full((40, 40), 255, dtype=torch.uint8)).any()
