"""Arg-max of bilinearly upsampled scores, without the upsampled scores."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.errors import UserError
from segformer.ops.bilinear import positions, use_triton

CHUNK = 1 << 20  # scores held at a time, in elements
CANDIDATES = 8  # classes of a cell that are looked at; real scores rarely leave more


def upsample_argmax(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Class of every pixel after bilinear upsampling.  (B, K, h, w) -> (B, H, W) int64 for ``size`` = (H, W)

    A bilinearly interpolated score is a convex combination of the four at its cell's corners.  Where one class wins at
    all four, it wins everywhere between them.  In a mixed cell the winners' mean is a bound from below of the best
    score: classes that are below it at every corner can not win, and only the others are interpolated.  Memory is
    O(B * H * W), never B * K * H * W.  Exact: equal to float64 arithmetic wherever the two best scores of a pixel
    differ by more than float32's rounding.  Reduced-precision logits are upcast first.
    """
    check_size(logits, size)
    if use_triton(logits):
        from segformer.ops.triton.argmax import upsample_argmax_triton

        return upsample_argmax_triton(logits, size, align_corners)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    cells = _Cells(logits, size, align_corners)
    mask = cells.nearest()
    mixed, step = cells.mixed().nonzero(), max(1, CHUNK // (4 * logits.shape[1]))
    for start in range(0, len(mixed), step):
        places, classes = cells.pixels(*mixed[start : start + step].unbind(1))
        mask.view(-1)[places] = classes
    return mask


class _Cells:
    """The squares between four neighbouring scores, and the strips and corners outside of them, each with its pixels.

    There are (h + 1) x (w + 1), with at most P x Q pixels each; one with fewer names its last ones again.
    """

    def __init__(self, logits: Tensor, size: tuple[int, int], align_corners: bool) -> None:
        self.num_classes, (self.height, self.width), self.size = logits.shape[1], logits.shape[2:], size
        self.scores = logits.permute(0, 2, 3, 1).contiguous().view(-1, self.num_classes)  # a pixel's lie together
        self.winners = self.scores.argmax(dim=1).view(-1, self.height, self.width)
        self.rows = _side(self.height, size[0], align_corners, logits.dtype, logits.device)
        self.columns = _side(self.width, size[1], align_corners, logits.dtype, logits.device)
        # Weights of the corners at each pixel, (side, P * Q * 4), of rows and of columns apart: products give both.
        self.shape = (self.rows.pixels.shape[1], self.columns.pixels.shape[1])
        vertical, horizontal = self.rows.weights[:, :, None, :, None], self.columns.weights[:, None, :, None, :]
        self.vertical = vertical.expand(-1, *self.shape, 2, 2).flatten(1)
        self.horizontal = horizontal.expand(-1, *self.shape, 2, 2).flatten(1)

    def nearest(self) -> Tensor:
        """Winner at one corner of each pixel's cell: its class wherever the cell is not mixed.  -> (B, H, W)"""
        return self.winners.index_select(2, self.columns.nearest).index_select(1, self.rows.nearest)

    def mixed(self) -> Tensor:
        """Whether a cell has pixels, and corners with different winners.  -> (B, h + 1, w + 1)"""
        above, below = (self.winners.index_select(1, side) for side in (self.rows.before, self.rows.after))
        first, *others = (half.index_select(2, s) for half in (above, below) for s in self.columns.sides())
        differ = torch.stack([first != other for other in others]).any(dim=0)
        return differ & self.rows.filled[:, None] & self.columns.filled

    def pixels(self, b: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where the pixels of cells lie in the mask, and their classes.  -> 2 x (n, P * Q)"""
        rows = (b * self.size[0])[:, None] + self.rows.pixels[y]
        places = rows[:, :, None] * self.size[1] + self.columns.pixels[x][:, None, :]
        upper, lower = ((b * self.height + side[y]) * self.width for side in self.rows.sides())
        corners = torch.stack([line + side[x] for line in (upper, lower) for side in self.columns.sides()])
        weights = (self.vertical.index_select(0, y) * self.horizontal.index_select(0, x)).view(len(y), -1, 4)
        return places.flatten(1), self.classes(corners, weights)

    def classes(self, corners: Tensor, weights: Tensor) -> Tensor:
        """Winners at pixels of cells, by places of corners (4, n) and their weights (n, P * Q, 4).  -> (n, P * Q)"""
        # The mean of the corners' winners is a bound from below of the best score, and lowest at one of the corners.
        at_corners = corners[:, None] * self.num_classes + self.winners.view(-1)[corners]  # (corner, winner, n)
        floor = self.scores.view(-1)[at_corners].mean(dim=1).amin(dim=0)
        highest = self.scores.index_select(0, corners[0])
        for corner in corners[1:]:
            torch.maximum(highest, self.scores.index_select(0, corner), out=highest)
        able = highest >= floor[:, None]
        few = able.sum(dim=1) <= CANDIDATES
        found = self.among(able & few[:, None], corners, weights)
        many, step = (~few).nonzero()[:, 0], max(1, 4 * CHUNK // (weights.shape[1] * self.num_classes))
        for start in range(0, len(many), step):
            rest = many[start : start + step]
            scores = self.scores.index_select(0, corners[:, rest].T.flatten()).view(len(rest), 4, -1)
            found[rest] = torch.bmm(weights[rest], scores).argmax(dim=2)
        return found

    def among(self, able: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
        """Winners among the few classes of each cell that are able to win.  (n, K) -> (n, P * Q)"""
        cell, name = able.nonzero().unbind(1)
        number = torch.bincount(cell, minlength=len(able))
        most = max(1, int(number.max()))
        place = cell * most + torch.arange(len(cell), device=cell.device) - (number.cumsum(0) - number)[cell]
        names = name.new_zeros(len(able) * most).index_put_((place,), name)
        scores = self.scores.new_full((4, len(names)), torch.finfo(self.scores.dtype).min)
        scores[:, place] = self.scores.view(-1)[corners.index_select(1, cell) * self.num_classes + name]
        scores = torch.bmm(weights, scores.view(4, len(able), most).transpose(0, 1))
        return names.view(-1, most).gather(1, scores.argmax(dim=2))


@dataclass(frozen=True)
class _Side:
    """Cells along one side of an image: cell k lies between the scores k - 1 and k, as far as there are such."""

    before: Tensor
    after: Tensor
    nearest: Tensor  # ``before`` of the cell of each pixel
    filled: Tensor  # whether there are pixels
    pixels: Tensor  # (cells, most); the last one again where there are fewer
    weights: Tensor  # of both scores at each of them, (cells, most, 2)

    def sides(self) -> tuple[Tensor, Tensor]:
        return self.before, self.after


@lru_cache(maxsize=16)
def _side(source: int, target: int, align_corners: bool, dtype: torch.dtype, device: torch.device) -> _Side:
    with torch.inference_mode(False):  # kept, and wanted elsewhere, too
        where = positions(source, target, align_corners)
        cell = where.floor().long() + 1
        number = torch.bincount(cell, minlength=source + 1)
        nth = torch.arange(int(number.max())).minimum((number - 1).clamp(min=0)[:, None])
        pixels = (nth + (number.cumsum(0) - number)[:, None]).clamp(max=target - 1)
        second = (where - where.floor())[pixels].to(dtype)
        before, after = torch.arange(-1, source).clamp(min=0), torch.arange(source + 1).clamp(max=source - 1)
        parts = (before, after, before[cell], number > 0, pixels, torch.stack([1 - second, second], dim=2))
        return _Side(*(part.to(device) for part in parts))


def upsample_argmax_reference(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Compute the same by interpolating all B x K x H x W scores first."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(dim=1)


def check_size(logits: Tensor, size: tuple[int, int]) -> None:
    """Raise a UserError where logits are not (B, K, h, w) or a target size is not positive."""
    if logits.ndim != 4 or 0 in logits.shape[1:]:
        raise UserError(f"logits must be (batch, classes, height, width), got {tuple(logits.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"size must be a positive (height, width), got {tuple(size)}")
