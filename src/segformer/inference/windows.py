"""Compute class scores or the mask of an image as a whole, by a sliding window, or at several scales (Sec. 4.1).

All protocols share one procedure.  Each view of the image (one scale, mirrored or not) is cut into windows, and the
logits of each window are kept at the small size that the network returns.  Scores at the image's size need much memory,
so they are computed for a band of rows at a time and averaged over the views.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from segformer.config import Blend, EvalConfig, Size
from segformer.data.transforms import preprocess
from segformer.models.interfaces import Network
from segformer.ops.bilinear import source_rows, upsample_points, upsample_rows
from segformer.ops.upsample_argmax import upsample_argmax

BAND = 1 << 23  # most scores (classes x pixels) in one band of rows
GAUSSIAN = 1 / 8  # standard deviation of the blending weights, as a share of the window's side
LEAST = 1e-3  # smallest blending weight; not 0, because the corners of an image are covered by one window only


@dataclass(frozen=True)
class Window:
    """A part of a view: its position and size in pixels of the view, and its logits (1, K, h, w)."""

    top: int
    left: int
    size: Size
    logits: Tensor


@dataclass(frozen=True)
class View:
    """The image at one scale, mirrored or not: its size at that scale, and the logits of its windows.

    Where sliding windows overlap, their logits are averaged with the weights of ``blend``.  A ``blend`` of None means a
    single window over the whole image.
    """

    windows: Sequence[Window]
    size: Size
    blend: Blend | None
    mirrored: bool = False


@torch.inference_mode()
def predict_mask(model: Network, image: Tensor, config: EvalConfig) -> Tensor:
    """Return the class of every pixel of one image, at the image's size.  (C, H, W) uint8 or float32 -> (H, W) int64"""
    if is_plain(config):
        return upsample_argmax(whole_logits(model, image), size_of(image), model.card.model.align_corners)[0]
    views = list(views_of(model, image, config))
    return torch.cat([scores.argmax(dim=0) for _, scores in score_bands(model, views, size_of(image))])


@torch.inference_mode()
def predict_scores(model: Network, image: Tensor, config: EvalConfig) -> Tensor:
    """Return class probabilities at the image's size, averaged over scales and flips.  (C, H, W) -> (K, H, W)"""
    views = list(views_of(model, image, config))
    total = views[0].windows[0].logits.new_empty(len(model.card.classes), *size_of(image), dtype=torch.float32)
    for rows, scores in score_bands(model, views, size_of(image)):
        total[:, rows] = scores if len(views) > 1 else scores.softmax(dim=0)
    return total


@torch.inference_mode()
def predict_with_scores(model: Network, image: Tensor, config: EvalConfig, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask, and the scores of each class at N pixels.  (C, H, W), (N,) -> (H, W), (N, K)

    ``points`` are indices of pixels, counted row by row.  Scores are logits, or with several views the logarithms of
    the averaged probabilities; in both cases, softmax turns them into probabilities.
    """
    height, width = size_of(image)
    points = points.to(model.device)
    ys, xs = points // width, points % width
    if is_plain(config):
        logits = whole_logits(model, image)
        align_corners = model.card.model.align_corners
        mask = upsample_argmax(logits, (height, width), align_corners)[0]
        return mask, upsample_points(logits[0], (height, width), ys, xs, align_corners)
    views = list(views_of(model, image, config))
    mask = torch.empty(height, width, dtype=torch.int64, device=ys.device)
    picked = torch.empty(len(points), len(model.card.classes), device=ys.device)
    for rows, scores in score_bands(model, views, (height, width)):
        mask[rows] = scores.argmax(dim=0)
        inside = (ys >= rows.start) & (ys < rows.stop)
        picked[inside] = scores[:, ys[inside] - rows.start, xs[inside]].T
    return mask, picked if len(views) == 1 else picked.clamp(min=torch.finfo(picked.dtype).tiny).log()


def is_plain(config: EvalConfig) -> bool:
    """Whether a protocol runs the model only once, on the whole image, so that there are no scores to average."""
    return config.crop is None and config.scales == (1.0,) and not config.flip


def views_of(model: Network, image: Tensor, config: EvalConfig) -> Iterator[View]:
    """Run the model and yield a view for each scale, and also a mirrored one if ``config.flip`` is set.  (C, H, W)"""
    for scale in config.scales:
        for mirrored in (False, True) if config.flip else (False,):
            pixels = preprocess(image.flip(-1) if mirrored else image, model.card.preprocessing, scale)
            if config.crop is None:
                logits = model(model.normalize(pixels[None].to(model.device)))
                yield View([Window(0, 0, size_of(pixels), logits)], size_of(pixels), None, mirrored)
            else:
                rows = slide(model, partial(_rows_of, pixels), size_of(pixels), config)
                yield View([window for row in rows for window in row], size_of(pixels), config.blend, mirrored)


def whole_logits(model: Network, image: Tensor, scale: float = 1.0) -> Tensor:
    """Return the logits of the whole image at one scale.  (C, H, W) uint8 or float32 -> (1, K, h, w)"""
    (view,) = views_of(model, image, EvalConfig(scales=(scale,)))
    return view.windows[0].logits


def slide(
    model: Network, read: Callable[[slice], Tensor], size: Size, config: EvalConfig, first: int = 0
) -> Iterator[list[Window]]:
    """Run the model on the windows of a view; yields the windows of one row at a time, from top to bottom.

    The first ``first`` rows of windows are left out.  ``size`` is the size of the view.  ``read`` takes a slice of
    pixel rows and returns their pixels before normalization, (C, rows, W).  The model gets up to ``config.windows``
    windows at once.
    """
    crop = crop_of(config, size)
    stride = stride_of(config)
    lefts = window_starts(size[1], crop[1], stride[1])
    for top in window_starts(size[0], crop[0], stride[0])[first:]:
        pixels = read(slice(top, top + crop[0]))
        row = []
        for k in range(0, len(lefts), config.windows):
            some = lefts[k : k + config.windows]
            batch = torch.stack([pixels[:, :, left : left + crop[1]] for left in some]).to(model.device)
            logits = torch.split(model(model.normalize(batch)), 1)
            row += [Window(top, left, crop, part) for left, part in zip(some, logits, strict=True)]
        yield row


def _rows_of(pixels: Tensor, rows: slice) -> Tensor:
    return pixels[:, rows]


def score_bands(
    model: Network, views: Sequence[View], size: Size, within: slice | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the scores of the image, one band of rows at a time.  -> slice of rows, (K, rows, W)

    Scores are the logits of a single view, or the mean probabilities of several views.  ``within``
    restricts them to some rows of the image.
    """
    align_corners = model.card.model.align_corners
    height = max(1, BAND // (len(model.card.classes) * size[1]))
    within = within or slice(0, size[0])
    for start in range(within.start, within.stop, height):
        rows = slice(start, min(start + height, within.stop))
        if len(views) == 1:
            yield rows, view_rows(views[0], size, rows, align_corners)
            continue
        total = view_rows(views[0], size, rows, align_corners).softmax(dim=0)
        for view in views[1:]:
            total += view_rows(view, size, rows, align_corners).softmax(dim=0)
        yield rows, total / len(views)


def view_rows(view: View, size: Size, rows: slice, align_corners: bool) -> Tensor:
    """Return the logits of a view for some rows of the image, at the image's ``size``.  -> (K, rows, W)"""
    if view.blend is None:
        (window,) = view.windows
        logits = window.logits
        scores = upsample_rows(logits, logits.shape[2], size, rows, align_corners)[0]
    elif view.size == size:
        scores = blended_rows(view, rows, align_corners)
    else:
        sources = source_rows(view.size[0], size[0], rows, align_corners)
        canvas = blended_rows(view, sources, align_corners)
        scores = upsample_rows(canvas[None], view.size[0], size, rows, align_corners)[0]
    return scores.flip(-1) if view.mirrored else scores


def blended_rows(view: View, rows: slice, align_corners: bool) -> Tensor:
    """Return the logits of some rows of the view, at its size, averaged over overlapping windows.  -> (K, rows, W)"""
    assert view.blend is not None
    like = view.windows[0].logits
    total = like.new_zeros(like.shape[1], rows.stop - rows.start, view.size[1], dtype=torch.float32)
    weight = total.new_zeros(1, *total.shape[1:])
    for window in view.windows:
        top, bottom = max(rows.start, window.top), min(rows.stop, window.top + window.size[0])
        if top >= bottom:
            continue
        inside = slice(top - window.top, bottom - window.top)
        logits = upsample_rows(window.logits, window.logits.shape[2], window.size, inside, align_corners)[0]
        share = window_weight(window.size, view.blend).to(total)[inside]
        part = (..., slice(top - rows.start, bottom - rows.start), slice(window.left, window.left + window.size[1]))
        total[part] += logits if view.blend == "uniform" else logits * share
        weight[part] += share
    return total / weight


@lru_cache(maxsize=8)
def window_weight(size: Size, blend: Blend) -> Tensor:
    """Return the blending weight of each pixel of a window.  -> (H, W)

    uniform: 1 everywhere; gaussian: a bell whose standard deviation is an eighth of the side; cosine: one period of
    1 - cos over the side.
    """
    profiles = []
    for side in size:
        position = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        if blend == "gaussian":
            profile = torch.exp(-0.5 * ((position - 0.5) / GAUSSIAN) ** 2)
        elif blend == "cosine":
            profile = 0.5 - 0.5 * torch.cos(2 * torch.pi * position)
        else:
            profile = torch.ones_like(position)
        profiles.append(profile.clamp(min=LEAST))
    return torch.outer(*profiles).float()


def crop_of(config: EvalConfig, size: Size) -> Size:
    """Return (height, width) of the sliding window; ``config.crop``, but at most the view's ``size``."""
    assert config.crop is not None
    return min(config.crop[0], size[0]), min(config.crop[1], size[1])


def stride_of(config: EvalConfig) -> Size:
    """Return the (vertical, horizontal) step of the sliding window in pixels; by default 3/4 of the window."""
    assert config.crop is not None
    return config.stride or (max(1, config.crop[0] * 3 // 4), max(1, config.crop[1] * 3 // 4))


def window_starts(side: int, crop: int, stride: int) -> list[int]:
    """Return the start of each window along one side; the last window is shifted back so that it ends with the side.

    >>> window_starts(2048, 1024, 768)
    [0, 768, 1024]
    """
    count = max(side - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, side - crop), 0) for i in range(count)]


def size_of(image: Tensor) -> Size:
    """Return (height, width) of an image or a batch."""
    return image.shape[-2], image.shape[-1]
