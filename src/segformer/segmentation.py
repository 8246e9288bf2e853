"""The result of a prediction, which can be drawn, outlined with polygons and saved."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segformer.arrays import Array
from segformer.config import Output
from segformer.errors import UserError
from segformer.files import write_bytes
from segformer.validation import check_choice

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES: dict[str, str] = {
    "mask": ".png",
    "overlay": "_overlay.png",
    "polygons": "_polygons.json",
    "scores": "_scores.npz",
}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segmentation of one image: the class of every pixel.

    ``mask`` contains class indices, (H, W) uint8, or uint16 if there are more than 256 classes.  ``image`` is the image
    that was segmented, (H, W, 3) uint8.  ``scores`` contains the class probabilities, (K, H, W) float32, if they were
    requested.
    """

    mask: Array
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image: Array | None = None
    scores: Array | None = None

    def __repr__(self) -> str:
        height, width = self.mask.shape
        main = ", ".join(f"{name} {share:.0%}" for name, share in list(self.shares().items())[:3])
        return f"Segmentation({height} x {width}, {main})"

    def shares(self) -> dict[str, float]:
        """Return each class in the mask with its share of the pixels (0 to 1), largest share first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes))[: len(self.classes)] / self.mask.size
        return {self.classes[k]: float(counts[k]) for k in np.argsort(-counts, kind="stable") if counts[k] > 0}

    def colors(self) -> Array:
        """Return the mask as a color image that uses the palette.  -> (H, W, 3) uint8"""
        return colorize(self.mask, self.palette)

    def overlay(self, opacity: float = 0.55) -> Array:
        """Blend the image with the colors of the classes, and draw the borders between classes.  -> (H, W, 3) uint8

        ``opacity`` is the weight of the colors in the blend, from 0 (only the image) to 1 (only the colors).
        """
        if self.image is None:
            raise UserError("overlay needs the image, but this Segmentation has none; create it with image=")
        if not 0.0 <= opacity <= 1.0:
            raise UserError(f"opacity must be between 0 and 1, got {opacity}")
        colors = self.colors().astype(np.float32)
        blended = self.image * (1 - opacity) + colors * opacity
        border = np.zeros(self.mask.shape, dtype=bool)
        border[:, 1:] |= self.mask[:, 1:] != self.mask[:, :-1]
        border[1:] |= self.mask[1:] != self.mask[:-1]
        blended[border] = 0.35 * blended[border] + 0.65 * 255
        return blended.round().astype(np.uint8)

    def polygons(self, min_area: int = 16) -> list[dict[str, Any]]:
        """Outline each connected region of at least ``min_area`` pixels with a polygon.

        Returns a dict for each region with "class" (name), "area" in pixels, "polygon" as (x, y) pixel coordinates, and
        "holes", a list of polygons around the holes in the region.
        """
        import cv2

        regions = []
        for index, name in enumerate(self.classes):
            binary = (self.mask == index).astype(np.uint8)
            _, regions_of_pixels = cv2.connectedComponents(binary, connectivity=8)
            areas = np.bincount(regions_of_pixels.ravel())
            contours, hierarchy = cv2.findContours(binary, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            parents = hierarchy[0, :, 3].tolist() if len(contours) else []
            for i, (contour, parent) in enumerate(zip(contours, parents, strict=True)):
                area = int(areas[regions_of_pixels[contour[0, 0, 1], contour[0, 0, 0]]])
                if parent < 0 and area >= min_area:
                    holes = [c[:, 0].tolist() for c, p in zip(contours, parents, strict=True) if p == i]
                    regions.append({"class": name, "area": area, "polygon": contour[:, 0].tolist(), "holes": holes})
        return regions

    def save(self, path: str | Path, outputs: Sequence[Output] = ("mask",)) -> list[Path]:
        """Write one file for each output, and return the paths.

        The files are ``<path>.png`` (mask), ``<path>_overlay.png``, ``<path>_polygons.json`` and ``<path>_scores.npz``.
        The mask is a PNG of class indices, with the palette if there are at most 256 classes.
        """
        for output in outputs:
            check_choice("output", output, SUFFIXES)
        encoded = {target_of(Path(path), output): self._encode(output) for output in outputs}
        for target, data in encoded.items():
            write_bytes(target, data)
        return list(encoded)

    def _encode(self, output: Output) -> bytes:
        if output == "mask":
            return png(index_image(self.mask, self.palette))
        if output == "overlay":
            return png(self.overlay())
        if output == "polygons":
            return json.dumps(self.polygons()).encode()
        if self.scores is None:
            raise UserError("scores were not computed; compute them with Predictor(model, scores=True)")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, scores=self.scores.astype(np.float16))
        return buffer.getvalue()


def target_of(path: Path, output: str) -> Path:
    """Return the path of the file for one output; a .png at the end of ``path`` is ignored.

    >>> target_of(Path("out/photo"), "overlay").as_posix()
    'out/photo_overlay.png'
    """
    base = path.with_suffix("") if path.suffix.lower() == ".png" else path
    return base.with_name(base.name + SUFFIXES[output])


def colorize(mask: Array, palette: Sequence[Sequence[int]]) -> Array:
    """Return a mask in the colors of a palette; ignored pixels are black.  (H, W) -> (H, W, 3) uint8"""
    table = np.zeros((max(256, len(palette)), 3), dtype=np.uint8)
    table[: len(palette)] = palette
    return table[mask]


def index_image(mask: Array, palette: Sequence[Sequence[int]]) -> "Image.Image":
    """Convert a mask to a Pillow image: 8-bit with a palette, or 16-bit gray if the mask is not uint8."""
    from PIL import Image

    if mask.dtype != np.uint8:
        return Image.fromarray(mask.astype(np.uint16))
    image = Image.fromarray(mask)
    image.putpalette(np.pad(np.asarray(palette, dtype=np.uint8), ((0, 256 - len(palette)), (0, 0))).tobytes())
    return image


def png(image: "Array | Image.Image") -> bytes:
    """Encode an image as PNG; ``image`` is a Pillow image or an (H, W, 3) uint8 array."""
    from PIL import Image

    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format="PNG")
    return buffer.getvalue()
