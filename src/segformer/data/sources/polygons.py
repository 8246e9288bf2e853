"""Samples whose masks are rasterized from polygons or run lengths when the sample is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from segformer.arrays import Array
from segformer.data.dataset import check_sizes
from segformer.data.images import RGB, Decoding, read_image
from segformer.data.sources.run_lengths import Runs

BACKGROUND = "background"  # class 0: pixels that no area covers

Outline = tuple[tuple[float, float], ...]
"""Corners (x, y) of a polygon."""
Shape = tuple[str, Outline | Runs]
"""(label, area); an area is a polygon or run lengths."""


@dataclass(frozen=True)
class PolygonPair:
    """An image file with its labeled areas; later areas cover earlier ones, and pixels in no area are class 0."""

    name: str
    image: Path
    mask: Path
    """The JSON file that describes the areas."""
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None
    """Height and width of the image according to the JSON file; None: the file does not give them."""
    classes: tuple[str, ...]

    def read(self, decoding: Decoding = RGB) -> tuple[Array, Array]:
        """Decode the image and draw the mask; raises a UserError if the image does not have the annotated size."""
        if self.size is None:  # the polygons are drawn at the image's own size
            decoding = replace(decoding, enough=None)
        image = read_image(self.image, decoding)
        height, width = self.size or image.shape[:2]
        drawn = draw(self.shapes, self.classes, (height, width))
        check_sizes(image, drawn, self, decoding)
        return image, drawn


def draw(shapes: Sequence[Shape], classes: Sequence[str], size: tuple[int, int]) -> Array:
    """Draw a mask: fill one area after the other with the index of its class.  -> (H, W) uint8"""
    canvas = Image.new("L", (size[1], size[0]), 0)
    pen = ImageDraw.Draw(canvas)
    for label, area in shapes:
        if isinstance(area, Runs):
            pen.bitmap(area.corner, Image.fromarray(area.pixels().astype(np.uint8) * 255), fill=classes.index(label))
        else:
            pen.polygon(area, fill=classes.index(label))
    return np.asarray(canvas)
