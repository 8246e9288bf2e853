"""Toytown: street scenes with masks, each drawn from a seed, so there is nothing to download."""

from dataclasses import dataclass
from functools import lru_cache

from segformer.arrays import Array
from segformer.config import Color
from segformer.data.dataset import DataSource
from segformer.data.images import RGB, Decoding, check_num_channels
from segformer.data.label_table import LabelTable
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
    """A street scene that is drawn when it is read."""

    seed: int

    @property
    def name(self) -> str:
        """Name of the scene, which contains its seed."""
        return f"scene_{self.seed:06}"

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Draw the image and its mask.  -> (192, 320, 3) uint8, (192, 320) uint8"""
        image, mask = draw_once(self.seed)
        return check_num_channels(image, self.name, decoding), mask


@lru_cache(maxsize=512)
def draw_once(seed: int) -> tuple[Array, Array]:
    """Draw a scene and cache it (240 kB per scene), because a run reads every training scene many times."""
    image, mask = draw_scene(seed)
    image.setflags(write=False)
    mask.setflags(write=False)
    return image, mask


def open_source(root: str) -> DataSource:
    """Return the scenes of each split; raises a UserError if a root is given, because nothing is read from disk."""
    if root:
        raise UserError(f"toytown is drawn and has no folder, got '{root}'; use --data toytown")
    splits = {name: [Scene(seed) for seed in seeds] for name, seeds in SPLITS.items()}
    return DataSource("toytown", CLASSES, PALETTE, LabelTable.identity(len(CLASSES)), splits)
