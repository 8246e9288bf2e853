import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
CLASSES = ["ground", "disc", "square"]
PALETTE = [[90, 80, 70], [220, 60, 60], [60, 90, 220]]
COLORS = np.array([[110, 100, 90], [200, 90, 80], [80, 100, 200]])


def draw_pair(seed: int, size: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) of a disc and a square on the ground, and its mask with an ignored border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, dtype=np.uint8)
    cy, cx, r = rng.uniform(8, size[0] - 8), rng.uniform(8, size[1] - 8), rng.uniform(5, 12)
    mask[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = 1
    top, left = rng.integers(0, size[0] - 16), rng.integers(0, size[1] - 16)
    mask[top : top + 14, left : left + 14] = 2
    image = (COLORS[mask] + rng.normal(0, 12, (*size, 3))).clip(0, 255).astype(np.uint8)
    mask[:2] = 255
    return image, mask


def write_folder(root: Path, splits: dict[str, int], size: tuple[int, int] = (48, 64)) -> Path:
    """A data set in the generic layout, with so many images a split."""
    seed = 0
    for split, number in splits.items():
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for index in range(number):
            image, mask = draw_pair(seed := seed + 1, size)
            Image.fromarray(image).save(root / "images" / split / f"{index:03}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{index:03}.png")
    (root / "dataset.json").write_text(json.dumps({"classes": CLASSES, "palette": PALETTE, "ignore_index": 255}))
    return root


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """Ten images to train on, four to evaluate on, 48 x 64."""
    return write_folder(tmp_path / "data", {"train": 10, "val": 4})


@pytest.fixture
def shared_data() -> Path:
    """Other people's real data, where they lie beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA
