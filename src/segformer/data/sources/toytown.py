"""Toytown: street scenes with masks, drawn from a seed; nothing to download."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from segformer.config import Color
from segformer.data.dataset import DataSource, LabelTable
from segformer.data.images import RGB, Decoding, check_channels
from segformer.data.sources.street_scene import draw_scene
from segformer.errors import UserError

CLASSES: tuple[str, ...] = ("sky", "building", "road", "pavement", "tree", "car", "person", "sign")
PALETTE: tuple[Color, ...] = (
    (142, 202, 230),
    (176, 137, 104),
    (92, 92, 112),
    (226, 207, 234),
    (82, 153, 92),
    (33, 84, 200),
    (230, 57, 90),
    (255, 200, 40),
)
SPLITS = {"train": range(0, 400), "val": range(100_000, 100_060), "test": range(200_000, 200_100)}  # seeds


@dataclass(frozen=True)
class Scene:
    """A street that is drawn when it is read."""

    seed: int

    @property
    def name(self) -> str:
        """Its seed in words."""
        return f"scene_{self.seed:06}"

    def read(self, decoding: Decoding = RGB) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw the image (192, 320, 3) uint8 and the mask (192, 320) uint8."""
        image, mask = drawn(self.seed)
        return check_channels(image, self.name, decoding), mask


@lru_cache(maxsize=512)
def drawn(seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image and mask of a scene, kept (240 kB each): a run sees every training scene many times."""
    image, mask = draw_scene(seed)
    image.setflags(write=False)
    mask.setflags(write=False)
    return image, mask


def open_source(root: str) -> DataSource:
    """Return the scenes of each split; raises a UserError where a root is given, for there is nothing to be found."""
    if root:
        raise UserError(f"toytown is drawn and has no folder, got '{root}'; give --data toytown")
    splits = {name: [Scene(seed) for seed in seeds] for name, seeds in SPLITS.items()}
    return DataSource("toytown", CLASSES, PALETTE, LabelTable.identity(len(CLASSES)), splits)
