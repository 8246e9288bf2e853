"""Segment images larger than memory: read rows, segment windows, and write each finished row of the mask to disk.

Windows are cut from the image at its own resolution; nothing is resized.  Finished rows are stored in a folder next to
the result.  After an interruption, segmentation resumes after the stored rows.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from segformer.arrays import Array, to_tensor
from segformer.config import IGNORE_INDEX, Color, EvalConfig, Size
from segformer.data.decoding import check_is_file
from segformer.data.image_paths import TIFF_SUFFIXES
from segformer.data.images import Decoding, image_array
from segformer.errors import UserError
from segformer.files import disk_errors
from segformer.inference.predictor import Predictor
from segformer.inference.windows import View, Window, crop_of, score_bands, slide, stride_of, window_starts
from segformer.json_config import to_json
from segformer.models.interfaces import Network
from segformer.resumable import OnProgress, Store

CACHE = 64  # MiB of decoded tiles that GDAL may keep
TILE = 512  # side of the tiles of a written TIFF
ROWS = "mask"  # file of the finished rows, in the folder of an unfinished image


@torch.inference_mode()
def segment_raster(
    model: Network, source: Path, target: Path, config: EvalConfig, *, progress: OnProgress | None = None
) -> None:
    """Segment an image file of any size, in windows of ``config.crop`` at the image's own resolution.

    ``target`` ends in .tif (tiled and compressed, with the source's georeference) or in .png, and contains the model's
    palette.  Pixels that the source declares to have no data become 255 (ignored).  ``progress`` is called with the
    number of finished rows and the number of all rows.  After an interruption, segmentation resumes from the folder
    ``<target>.part``.  Raises a UserError if the file is not an image, or has to be rotated as EXIF says.
    """
    check_windows(config)
    predictor = Predictor(model, config=config)
    with opened(source) as raster:
        size = (raster.height, raster.width)
        identity = {
            "source": [source.name, source.stat().st_size, *size],
            "weights": model.fingerprint(),
            "protocol": to_json(config),
        }
        folder = target.with_name(f"{target.name}.part")
        store = Store(folder, identity, work="mask", remedy="remove this folder")
        with MaskRows(store, size) as done:
            reader = RowReader(raster, predictor.decoding)
            for rows, mask in mask_rows(predictor, reader, size, done.count):
                reader.drop_nodata(rows, mask)
                done.append(mask)
                if progress:
                    progress(rows.stop, size[0])
            save_mask(done, target, predictor.model.card.palette, raster)
        store.remove()


def check_windows(config: EvalConfig) -> None:
    """Raise a UserError unless the protocol is a sliding window at one scale, without mirroring."""
    if config.crop is None or config.scales != (1.0,) or config.flip:
        raise UserError(
            "an image can be segmented from disk to disk only by a sliding window at one scale, without mirroring; "
            "give a window size (--window 1024), or segment the image as a whole (leave --window out)"
        )


def mask_rows(
    predictor: Predictor, read: Callable[[slice], Tensor], size: Size, done: int = 0
) -> Iterator[tuple[slice, Array]]:
    """Yield a slice of rows and the classes of their pixels, starting with row ``done``.  -> slice, (rows, W) uint8

    ``read`` takes a slice of rows and returns their pixels, (C, rows, W).  Rows are yielded as soon as no later
    window covers them.
    """
    model = predictor.model
    config = predictor.config
    crop = crop_of(config, size)
    tops = window_starts(size[0], crop[0], stride_of(config)[0])
    first = next((k for k, top in enumerate(tops) if top + crop[0] > done), len(tops))
    kept: list[Window] = []
    for k, row in enumerate(slide(model, read, size, config, first), start=first):
        kept = [window for window in kept if window.top + crop[0] > done] + row
        end = max(done, tops[k + 1]) if k + 1 < len(tops) else size[0]
        view = View(kept, size, config.blend)
        for rows, scores in score_bands(model, [view], size, slice(done, end)):
            yield rows, scores.argmax(dim=0).to("cpu", torch.uint8).numpy()
        done = end


class RowReader:
    """Reads rows of a raster as pixels for the model; rows that two successive calls share are read only once."""

    def __init__(self, raster: Any, decoding: Decoding) -> None:
        self.raster = raster
        self.decoding = decoding
        self.nodata = raster.nodata
        self.first = 0
        self.kept = torch.empty(0)

    def __call__(self, rows: slice) -> Tensor:
        """Return the pixels of some rows; rows that the previous call returned are not read again.  -> (C, rows, W)"""
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
        return to_tensor(image_array(pixels, self.decoding))

    def _bands(self, rows: slice) -> Array:
        from rasterio.errors import RasterioError

        try:
            pixels = self.raster.read(window=self._window(rows))
        except RasterioError as error:
            raise UserError(f"{self.raster.name}: damaged image ({error}); replace or remove it") from error
        if self.nodata is not None and self.decoding.pixels == "raw":  # "no data" may be NaN, which is no pixel value
            pixels = np.where(np.isfinite(pixels), pixels, 0)
        return np.asarray(pixels)

    def _window(self, rows: slice) -> Any:
        from rasterio.windows import Window as RasterWindow

        return RasterWindow(0, rows.start, self.raster.width, rows.stop - rows.start)

    def _colors(self, gray: Array) -> Array:
        """Return the colors of palette indices, or gray values unchanged.  (rows, W) -> (rows, W, 3) or (rows, W)"""
        try:
            table = self.raster.colormap(1)
        except ValueError:
            return gray
        colors = np.zeros((max(table) + 1, 3), dtype=np.uint8)
        for index, color in table.items():
            colors[index] = color[:3]
        return colors[gray]

    def drop_nodata(self, rows: slice, mask: Array) -> None:
        """Write 255 (ignored) into the mask at all pixels that the raster declares to have no data.  (rows, W)"""
        if self.nodata is not None:
            mask[self.raster.dataset_mask(window=self._window(rows)) == 0] = IGNORE_INDEX


class MaskRows:
    """The finished rows of a mask, stored in order in one file; the size of the file gives their number."""

    def __init__(self, store: Store, size: Size) -> None:
        self.size = size
        self.path = store.path(ROWS)
        with disk_errors(self.path):
            self.file: BinaryIO = self.path.open("ab")
        self.count = self.file.tell() // size[1]
        self.file.truncate(self.count * size[1])  # an interruption may have left a part of a row

    def append(self, mask: Array) -> None:
        """Append the next rows to the file.  (rows, W) uint8"""
        with disk_errors(self.path):
            self.file.write(mask.tobytes())
            self.file.flush()

    def read(self, rows: slice) -> Array:
        """Read some finished rows from the file.  -> (rows, W) uint8"""
        width = self.size[1]
        found = np.fromfile(self.path, np.uint8, (rows.stop - rows.start) * width, offset=rows.start * width)
        return found.reshape(-1, width)

    def __enter__(self) -> "MaskRows":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def save_mask(done: MaskRows, target: Path, palette: Sequence[Color], raster: Any) -> None:
    """Write the finished mask as a TIFF with the raster's georeference, or as a PNG.

    ``target`` appears only when the file is complete.
    """
    import rasterio
    from rasterio.shutil import copy
    from rasterio.windows import Window as RasterWindow

    height, width = done.size
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "height": height, "width": width, "compress": "deflate",
        "tiled": True, "blockxsize": TILE, "blockysize": TILE, "bigtiff": "if_safer", "nodata": IGNORE_INDEX,
        "crs": raster.crs, "transform": raster.transform,
    }  # fmt: skip
    tiff = done.path.with_name("mask.tif")
    with disk_errors(target), rasterio.open(tiff, "w", **profile) as result:
        result.write_colormap(1, {index: (*color, 255) for index, color in enumerate(palette)})
        for top in range(0, height, TILE):
            rows = slice(top, min(top + TILE, height))
            result.write(done.read(rows), 1, window=RasterWindow(0, top, width, rows.stop - top))
    written = tiff
    if target.suffix.lower() not in TIFF_SUFFIXES:
        written = tiff.with_suffix(".png")
        with disk_errors(target):
            copy(tiff, written, driver="PNG")
    with disk_errors(target):
        written.replace(target)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an image file for reading row by row; raises a UserError if it is not an image or not upright."""
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
                raise UserError(f"{path}: expected an upright image, got EXIF orientation {turned}; rotate it first")
            yield raster
