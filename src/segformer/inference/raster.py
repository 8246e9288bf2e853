"""Images larger than memory: read by rows, segmented by windows, written to disk as they are done.

Pixels keep their own resolution: no resize comes before the windows.  The mask so far lies in a file beside the
result, so that an interrupted image goes on where it stood.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from segformer.arrays import Array
from segformer.config import IGNORE_INDEX, Color, EvalConfig, Size, to_json
from segformer.data.decoding import check_is_file
from segformer.data.image_paths import TIFF_SUFFIXES
from segformer.data.images import Decoding, image_array
from segformer.errors import UserError
from segformer.files import disk_errors, read_json, write_json
from segformer.inference.samples import decoding_of
from segformer.inference.windows import View, Window, score_bands, slide, stride_of, window_starts
from segformer.models.interfaces import Network
from segformer.models.segmenter import for_inference
from segformer.resumable import OnProgress

CACHE = 64  # MiB that GDAL may keep of decoded tiles
TILE = 512  # side of the tiles of a written TIFF


@torch.inference_mode()
def segment_raster(
    model: Network, source: Path, target: Path, config: EvalConfig, *, progress: OnProgress | None = None
) -> None:
    """Segment an image file of any size, from disk to disk, by windows of ``config.crop`` at its own resolution.

    ``target`` ends in .tif (tiled, compressed, with the source's georeference) or .png; both have the palette.
    Pixels that a source declares to be without data become 255.  ``progress`` is called with (rows done, of how many).
    An interrupted image goes on from ``<target>.part``.  Raises a UserError where the file is no such image.
    """
    check_windows(config)
    fused = for_inference(model)
    with opened(source) as raster:
        size = (raster.height, raster.width)
        what = {
            "source": [source.name, source.stat().st_size, *size],
            "weights": model.fingerprint(),
            "protocol": to_json(config),
        }
        with Partial(target, size, what) as partial:
            reader = Rows(raster, decoding_of(model))
            for rows, mask in mask_rows(fused, reader, size, config, partial.done):
                reader.drop_nodata(rows, mask)
                partial.write(mask)
                if progress:
                    progress(rows.stop, size[0])
            save_mask(partial, target, model.card.palette, raster)
            partial.remove()


def check_windows(config: EvalConfig) -> None:
    """Raise a UserError where a protocol is none that goes window by window."""
    if config.crop is None or config.scales != (1.0,) or config.flip:
        raise UserError(
            "an image is segmented from disk to disk by windows at one scale, not mirrored; give a window size "
            "(--window 1024), or leave the option out"
        )


def mask_rows(
    model: Network, read: Callable[[slice], Tensor], size: Size, config: EvalConfig, done: int = 0
) -> Iterator[tuple[slice, Array]]:
    """Class of every pixel, some rows at a time, from row ``done`` on.  -> rows, (rows, W) uint8

    Rows are given out as soon as no later window covers them; of a window only its quarter-size logits are kept.
    """
    assert config.crop is not None
    crop = (min(config.crop[0], size[0]), min(config.crop[1], size[1]))
    tops = window_starts(size[0], crop[0], stride_of(config)[0])
    first = next((k for k, top in enumerate(tops) if top + crop[0] > done), len(tops))
    kept: list[Window] = []
    for place, row in enumerate(slide(model, read, size, config, first), start=first):
        kept = [window for window in kept if window.top + crop[0] > done] + row
        end = max(done, tops[place + 1]) if place + 1 < len(tops) else size[0]
        view = View(kept, size, config.blend)
        for rows, scores in score_bands(model, [view], size, slice(done, end)):
            yield rows, scores.argmax(dim=0).to("cpu", torch.uint8).numpy()
        done = end


class Rows:
    """Reads rows of a raster as the model's pixels, each row from disk once: overlapping ones are kept."""

    def __init__(self, raster: Any, decoding: Decoding) -> None:
        self.raster, self.decoding = raster, decoding
        self.first, self.kept = 0, torch.empty(0)
        self.nodata = raster.nodata

    def __call__(self, rows: slice) -> Tensor:
        """Return (C, rows, W) uint8 or float32; rows may only go forward."""
        if self.kept.numel() and self.first <= rows.start < self.first + self.kept.shape[1]:
            old = self.kept[:, rows.start - self.first :]
            fresh = slice(rows.start + old.shape[1], rows.stop)
            self.kept = torch.cat([old, self._read(fresh)], dim=1) if fresh.start < fresh.stop else old
        else:
            self.kept = self._read(rows)
        self.first = rows.start
        return self.kept

    def _read(self, rows: slice) -> Tensor:
        pixels = self._bands(rows).transpose(1, 2, 0)
        if self.decoding.pixels == "rgb" and len(self.raster.indexes) == 1:
            pixels = self._colors(pixels[:, :, 0])
        return torch.from_numpy(image_array(pixels, self.decoding).transpose(2, 0, 1).copy())

    def _bands(self, rows: slice) -> Array:
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as Part

        try:
            pixels = self.raster.read(window=Part(0, rows.start, self.raster.width, rows.stop - rows.start))
        except RasterioError as error:
            raise UserError(f"{self.raster.name}: damaged image ({error}); replace or remove it") from error
        if self.nodata is not None and self.decoding.pixels == "raw":  # NaN is no pixel value
            pixels = np.where(np.isfinite(pixels), pixels, 0)
        return np.asarray(pixels)

    def _colors(self, grey: Array) -> Array:
        """Grey, or palette indices as their colours."""
        try:
            table = self.raster.colormap(1)
        except ValueError:
            return grey
        colors = np.zeros((max(table) + 1, 3), dtype=np.uint8)
        for index, color in table.items():
            colors[index] = color[:3]
        return colors[grey]

    def drop_nodata(self, rows: slice, mask: Array) -> None:
        """Write 255 where the raster declares that it has no data."""
        if self.nodata is None:
            return
        from rasterio.windows import Window as Part

        part = Part(0, rows.start, self.raster.width, rows.stop - rows.start)
        mask[self.raster.dataset_mask(window=part) == 0] = IGNORE_INDEX


class Partial:
    """The mask so far, rows one after the other in ``<target>.part/mask``: what is there is done, kill or not.

    Raises a UserError where it is that of something else.
    """

    def __init__(self, target: Path, size: Size, what: dict[str, Any]) -> None:
        self.folder = target.with_name(f"{target.name}.part")
        self.array, state = self.folder / "mask", self.folder / "what.json"
        self.size, what = size, json.loads(json.dumps(what))
        if state.is_file() and read_json(state) != what:
            raise UserError(f"{self.folder} holds an unfinished mask of something else; remove it")
        if not state.is_file():
            write_json(state, what)
        self.file: BinaryIO = self.array.open("ab")
        self.done = self.file.tell() // size[1]
        self.file.truncate(self.done * size[1])

    def write(self, mask: Array) -> None:
        """Store the next rows."""
        with disk_errors(self.array):
            self.file.write(mask.tobytes())
            self.file.flush()

    def read(self, rows: slice) -> Array:
        """Return some rows, (rows, W) uint8."""
        width = self.size[1]
        found = np.fromfile(self.array, np.uint8, (rows.stop - rows.start) * width, offset=rows.start * width)
        return found.reshape(-1, width)

    def remove(self) -> None:
        """Remove what is not needed any more."""
        self.file.close()
        shutil.rmtree(self.folder)

    def __enter__(self) -> "Partial":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def save_mask(partial: Partial, target: Path, palette: Sequence[Color], raster: Any) -> None:
    """Write the finished mask as a TIFF with the raster's georeference, or as a PNG; all of it or nothing."""
    import rasterio
    from rasterio.shutil import copy
    from rasterio.windows import Window as Part

    height, width = partial.size
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "height": height, "width": width, "compress": "deflate",
        "tiled": True, "blockxsize": TILE, "blockysize": TILE, "bigtiff": "if_safer", "nodata": IGNORE_INDEX,
        "crs": raster.crs, "transform": raster.transform,
    }  # fmt: skip
    written = partial.folder / "mask.tif"
    with disk_errors(target), rasterio.open(written, "w", **profile) as result:
        result.write_colormap(1, {index: (*color, 255) for index, color in enumerate(palette)})
        for top in range(0, height, TILE):
            rows = slice(top, min(top + TILE, height))
            result.write(partial.read(rows), 1, window=Part(0, top, width, rows.stop - top))
    if target.suffix.lower() not in TIFF_SUFFIXES:
        written = partial.folder / "mask.png"
        with disk_errors(target):
            copy(partial.folder / "mask.tif", written, driver="PNG")
    written.replace(target)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an image file for reading by rows; raises a UserError that names a file that is none."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    check_is_file(path)
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_PAM_ENABLED="NO"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            raster = rasterio.open(path)
        except RasterioError as error:
            raise UserError(f"{path}: expected an image, got a file of another kind; replace or remove it") from error
        with raster:
            turned = raster.tags().get("EXIF_Orientation", "1")
            if turned != "1":
                raise UserError(f"{path}: expected an upright image, got EXIF orientation {turned}; turn it first")
            yield raster
