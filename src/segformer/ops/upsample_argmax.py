"""Arg-max over the classes of bilinearly upsampled logits, computed without upsampling all logits."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.errors import UserError
from segformer.ops.bilinear import positions, use_triton

CHUNK = 1 << 20  # number of scores in memory at a time
CANDIDATES = 8  # the fast path handles cells with at most this many possible winners; real cells rarely have more


def upsample_argmax(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Return the class of every pixel after bilinear upsampling to ``size``.  (B, K, h, w) -> (B, H, W) int64

    Four neighboring positions are the corners of a cell.  A pixel's scores are weighted means of the logits at
    the corners of its cell.  A class that has the best score at all four corners therefore wins in the whole cell.  In
    any other cell, the best score of a pixel is at least the mean of the scores of the four corners' winners.  Within
    the cell, this mean is smallest at a corner.  A class whose scores at all corners are below the smallest mean cannot
    win, so only the remaining classes are interpolated.

    Memory is O(B * H * W), never B * K * H * W.  The result equals that of float64 arithmetic if the two best scores of
    a pixel differ by more than the rounding error of float32.  Logits in bfloat16 or float16 are converted to float32.
    """
    check_size(logits, size)
    if use_triton(logits):
        from segformer.ops.triton.argmax import upsample_argmax_triton

        return upsample_argmax_triton(logits, size, align_corners)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    cells = _Cells(logits, size, align_corners)
    mask = cells.nearest()
    mixed = cells.mixed().nonzero()
    step = max(1, CHUNK // (4 * logits.shape[1]))
    for start in range(0, len(mixed), step):
        positions_in_mask, classes = cells.pixels(*mixed[start : start + step].unbind(1))
        mask.view(-1)[positions_in_mask] = classes
    return mask


class _Cells:
    """The cells of a map (the squares between four neighboring positions) and the target pixels in each of them.

    Cells at the border reach beyond the outermost positions, so there are (h + 1) x (w + 1) cells.  No cell has more
    than P rows and Q columns of pixels; if a cell has fewer, its last row or column is repeated up to P x Q pixels.
    """

    def __init__(self, logits: Tensor, size: tuple[int, int], align_corners: bool) -> None:
        self.num_classes = logits.shape[1]
        self.height, self.width = logits.shape[2:]
        self.size = size
        self.scores = logits.permute(0, 2, 3, 1).contiguous().view(-1, self.num_classes)  # (B * h * w, K)
        self.winners = self.scores.argmax(dim=1).view(-1, self.height, self.width)
        self.rows = _side(self.height, size[0], align_corners, logits.dtype, logits.device)
        self.columns = _side(self.width, size[1], align_corners, logits.dtype, logits.device)
        # The weight of a corner at a pixel is a product of a weight along the rows and one along the columns, each
        # (cells of the side, P * Q * 4).
        self.shape = (self.rows.pixels.shape[1], self.columns.pixels.shape[1])
        vertical = self.rows.weights[:, :, None, :, None]
        horizontal = self.columns.weights[:, None, :, None, :]
        self.vertical = vertical.expand(-1, *self.shape, 2, 2).flatten(1)
        self.horizontal = horizontal.expand(-1, *self.shape, 2, 2).flatten(1)

    def nearest(self) -> Tensor:
        """Return the best class at one corner of each pixel's cell; it is final if all corners agree.  -> (B, H, W)"""
        return self.winners.index_select(2, self.columns.nearest).index_select(1, self.rows.nearest)

    def mixed(self) -> Tensor:
        """Whether each cell contains pixels and has corners with different winners.  -> (B, h + 1, w + 1) bool"""
        above, below = (self.winners.index_select(1, side) for side in (self.rows.before, self.rows.after))
        first, *others = (half.index_select(2, s) for half in (above, below) for s in self.columns.sides())
        differ = torch.stack([first != other for other in others]).any(dim=0)
        return differ & self.rows.filled[:, None] & self.columns.filled

    def pixels(self, b: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices in the flat mask, and the classes, of the pixels of n cells.  -> 2 x (n, P * Q)"""
        rows = (b * self.size[0])[:, None] + self.rows.pixels[y]
        indices = rows[:, :, None] * self.size[1] + self.columns.pixels[x][:, None, :]
        upper, lower = ((b * self.height + side[y]) * self.width for side in self.rows.sides())
        corners = torch.stack([line + side[x] for line in (upper, lower) for side in self.columns.sides()])
        weights = (self.vertical.index_select(0, y) * self.horizontal.index_select(0, x)).view(len(y), -1, 4)
        return indices.flatten(1), self.classes(corners, weights)

    def classes(self, corners: Tensor, weights: Tensor) -> Tensor:
        """Return the classes of the pixels of n cells.  corners (4, n), weights (n, P * Q, 4) -> (n, P * Q)"""
        # No best score is below ``floor``: the mean score of the four winners, at the corner where it is smallest.
        at_corners = corners[:, None] * self.num_classes + self.winners.view(-1)[corners]  # (corner, winner, n)
        floor = self.scores.view(-1)[at_corners].mean(dim=1).amin(dim=0)
        highest = self.scores.index_select(0, corners[0])
        for corner in corners[1:]:
            torch.maximum(highest, self.scores.index_select(0, corner), out=highest)
        able = highest >= floor[:, None]
        few = able.sum(dim=1) <= CANDIDATES
        found = self.among(able & few[:, None], corners, weights)
        many = (~few).nonzero()[:, 0]
        step = max(1, 4 * CHUNK // (weights.shape[1] * self.num_classes))
        for start in range(0, len(many), step):
            rest = many[start : start + step]
            scores = self.scores.index_select(0, corners[:, rest].T.flatten()).view(len(rest), 4, -1)
            found[rest] = torch.bmm(weights[rest], scores).argmax(dim=2)
        return found

    def among(self, able: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
        """Return the classes of the pixels when only the classes marked ``able`` can win.  (n, K) bool -> (n, P * Q)"""
        cell, candidate = able.nonzero().unbind(1)
        number = torch.bincount(cell, minlength=len(able))
        most = max(1, int(number.max()))
        slot = cell * most + torch.arange(len(cell), device=cell.device) - (number.cumsum(0) - number)[cell]
        candidates = candidate.new_zeros(len(able) * most).index_put_((slot,), candidate)
        scores = self.scores.new_full((4, len(candidates)), torch.finfo(self.scores.dtype).min)
        scores[:, slot] = self.scores.view(-1)[corners.index_select(1, cell) * self.num_classes + candidate]
        scores = torch.bmm(weights, scores.view(4, len(able), most).transpose(0, 1))
        return candidates.view(-1, most).gather(1, scores.argmax(dim=2))


@dataclass(frozen=True)
class _Side:
    """The cells along one axis: cell k is between positions k - 1 and k; the first and last cell lack one of them."""

    before: Tensor  # index of the position before each cell
    after: Tensor  # index of the position after each cell
    nearest: Tensor  # for each pixel, ``before`` of its cell
    filled: Tensor  # whether each cell contains pixels
    pixels: Tensor  # indices of the pixels in each cell (cells, most); cells with fewer pixels repeat the last one
    weights: Tensor  # weights of the positions before and after a cell at each of its pixels (cells, most, 2)

    def sides(self) -> tuple[Tensor, Tensor]:
        return self.before, self.after


@lru_cache(maxsize=16)
def _side(source: int, target: int, align_corners: bool, dtype: torch.dtype, device: torch.device) -> _Side:
    with torch.inference_mode(False):  # the cached tensors can then be used outside inference mode, too
        places = positions(source, target, align_corners)
        cell = places.floor().long() + 1
        number = torch.bincount(cell, minlength=source + 1)
        nth = torch.arange(int(number.max())).minimum((number - 1).clamp(min=0)[:, None])
        pixels = (nth + (number.cumsum(0) - number)[:, None]).clamp(max=target - 1)
        second = (places - places.floor())[pixels].to(dtype)
        before = torch.arange(-1, source).clamp(min=0)
        after = torch.arange(source + 1).clamp(max=source - 1)
        parts = (before, after, before[cell], number > 0, pixels, torch.stack([1 - second, second], dim=2))
        return _Side(*(part.to(device) for part in parts))


def upsample_argmax_reference(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Compute the same as ``upsample_argmax``, but upsample all logits to (B, K, H, W)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(dim=1)


def check_size(logits: Tensor, size: tuple[int, int]) -> None:
    """Raise a UserError if the logits are not (B, K, h, w), or if the size is not a positive (height, width)."""
    if logits.ndim != 4 or 0 in logits.shape[1:]:
        raise UserError(f"logits must be (batch, classes, height, width), got {tuple(logits.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"size must be a positive (height, width), got {tuple(size)}")
