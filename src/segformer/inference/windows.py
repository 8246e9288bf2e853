"""From an image to class scores or a mask: whole image, sliding window, several scales (Sec. 4.1).

Every way there is one: a view of the image (a scale, maybe mirrored) is cut into windows, of which the logits at a
quarter of their size are kept; full-size scores are made from them a band of rows at a time, averaged, and given up.
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

BAND = 1 << 23  # scores held at a time, in elements
GAUSSIAN = 1 / 8  # standard deviation of the blending weights, of a window's side
LEAST = 1e-3  # weight, of the largest: the corners of an image lie in one window only


@dataclass(frozen=True)
class Window:
    """Logits (1, K, h, w) of a part of a view, at a quarter of the part's size."""

    top: int
    left: int
    size: Size
    logits: Tensor


@dataclass(frozen=True)
class View:
    """One look at an image: its windows, in pixels of ``size``, and whether it was mirrored.

    The windows of a slide are averaged at ``size``, weighted by ``blend``; the one window of a whole image (None) is
    upsampled to the image in one step.
    """

    windows: Sequence[Window]
    size: Size
    blend: Blend | None
    mirrored: bool = False


@torch.inference_mode()
def predict_mask(model: Network, image: Tensor, config: EvalConfig) -> Tensor:
    """Class of every pixel of one image at its own size.  (C, H, W) uint8 -> (H, W) int64"""
    if is_plain(config):
        return upsample_argmax(whole_logits(model, image), size_of(image), model.card.model.align_corners)[0]
    views = list(views_of(model, image, config))
    return torch.cat([scores.argmax(dim=0) for _, scores in score_bands(model, views, size_of(image))])


@torch.inference_mode()
def predict_scores(model: Network, image: Tensor, config: EvalConfig) -> Tensor:
    """Class probabilities of one image at its own size, averaged over scales and flips.  (C, H, W) -> (K, H, W)"""
    views = list(views_of(model, image, config))
    total = views[0].windows[0].logits.new_empty(len(model.card.classes), *size_of(image), dtype=torch.float32)
    for rows, scores in score_bands(model, views, size_of(image)):
        total[:, rows] = scores if len(views) > 1 else scores.softmax(dim=0)
    return total


@torch.inference_mode()
def predict_with_scores(model: Network, image: Tensor, config: EvalConfig, points: Tensor) -> tuple[Tensor, Tensor]:
    """The mask, and at some pixels (N,), numbered row by row, the scores that it was chosen by.  -> (H, W), (N, K)

    They are logits, or with several views the logarithms of the averaged probabilities: softmax gives probabilities.
    """
    height, width = size_of(image)
    ys, xs = points.to(model.device) // width, points.to(model.device) % width
    if is_plain(config):
        logits, align_corners = whole_logits(model, image), model.card.model.align_corners
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
    """Whether a mask comes from one look at the whole image: its scores need not be made at full size then."""
    return config.crop is None and config.scales == (1.0,) and not config.flip


def views_of(model: Network, image: Tensor, config: EvalConfig) -> Iterator[View]:
    """Look at an image (C, H, W) at every scale, as it is and mirrored."""
    for scale in config.scales:
        for mirrored in (False, True) if config.flip else (False,):
            given = image.flip(-1) if mirrored else image
            pixels = preprocess(given, model.card.preprocessing, scale)
            if config.crop is None:
                logits = model(model.normalize(pixels[None].to(model.device)))
                yield View([Window(0, 0, size_of(pixels), logits)], size_of(pixels), None, mirrored)
            else:
                rows = slide(model, partial(_rows_of, pixels), size_of(pixels), config)
                yield View([window for row in rows for window in row], size_of(pixels), config.blend, mirrored)


def whole_logits(model: Network, image: Tensor, scale: float = 1.0) -> Tensor:
    """Logits of the whole image at a quarter of its preprocessed size.  (C, H, W) uint8 -> (1, K, h, w)"""
    (view,) = views_of(model, image, EvalConfig(scales=(scale,)))
    return view.windows[0].logits


def slide(
    model: Network, read: Callable[[slice], Tensor], size: Size, config: EvalConfig, first: int = 0
) -> Iterator[list[Window]]:
    """Windows of a view of ``size``, one row of windows after the other, from the ``first`` on.

    ``read`` gives the raw pixels (C, rows, W) of some rows.  ``config.windows`` of them go through the model at once.
    """
    assert config.crop is not None
    crop, stride = (min(config.crop[0], size[0]), min(config.crop[1], size[1])), stride_of(config)
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
    """Bands of rows with their scores (K, rows, W): of one view its logits, of several their mean probabilities.

    ``within``: only these rows.
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
    """Logits of a view at some rows of the image.  -> (K, rows, W)"""
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
    """Mean of the windows' logits where they overlap, at some rows of the view.  -> (K, rows, W)"""
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
        place = (..., slice(top - rows.start, bottom - rows.start), slice(window.left, window.left + window.size[1]))
        total[place] += logits if view.blend == "uniform" else logits * share
        weight[place] += share
    return total / weight


@lru_cache(maxsize=8)
def window_weight(size: Size, blend: Blend) -> Tensor:
    """How much each pixel of a window counts, its centre most.  -> (H, W)

    uniform: all the same; gaussian: of a standard deviation of an eighth of the side; cosine: a period over the side.
    """
    profiles = []
    for side in size:
        place = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        if blend == "gaussian":
            profile = torch.exp(-0.5 * ((place - 0.5) / GAUSSIAN) ** 2)
        elif blend == "cosine":
            profile = 0.5 - 0.5 * torch.cos(2 * torch.pi * place)
        else:
            profile = torch.ones_like(place)
        profiles.append(profile.clamp(min=LEAST))
    return torch.outer(*profiles).float()


def stride_of(config: EvalConfig) -> Size:
    """Step of the sliding window in pixels."""
    assert config.crop is not None
    return config.stride or (max(1, config.crop[0] * 3 // 4), max(1, config.crop[1] * 3 // 4))


def window_starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along one side; the last one is shifted back inside.

    >>> window_starts(2048, 1024, 768)
    [0, 768, 1024]
    """
    number = max(side - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride, side - crop), 0) for i in range(number)]


def size_of(image: Tensor) -> Size:
    """(height, width) of an image or a batch."""
    return image.shape[-2], image.shape[-1]
