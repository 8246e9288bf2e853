"""Arg-max of bilinearly upsampled scores, without the upsampled scores."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segformer.ops.bilinear import axis, use_triton

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
        from segformer.ops.upsample_argmax_triton import upsample_argmax_triton

        return upsample_argmax_triton(logits, size, align_corners)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    winners = logits.argmax(dim=1)  # (B, h, w)
    cells = _Cells(logits, size, align_corners)
    mask = winners[:, cells.top[:, None], cells.left]
    below, beside = winners[:, cells.below], winners[:, :, cells.beside]
    mixed = (winners != below) | (winners != beside) | (winners != below[:, :, cells.beside])
    for part in torch.split(mixed.nonzero(), max(1, CHUNK // (4 * logits.shape[1]))):
        places, inside = cells.places(*part.unbind(1))
        mask.view(-1)[places[inside]] = cells.classes(winners, *part.unbind(1))[inside]
    return mask


class _Cells:
    """The squares between four neighbouring scores, each with up to P x Q pixels of the target."""

    def __init__(self, logits: Tensor, size: tuple[int, int], align_corners: bool) -> None:
        self.size, (_, self.num_classes, self.height, self.width) = size, logits.shape
        self.scores = logits.permute(0, 2, 3, 1).reshape(-1, self.num_classes)  # a pixel's scores lie together
        self.top, _, down = axis(self.height, size[0], align_corners, logits)
        self.left, _, across = axis(self.width, size[1], align_corners, logits)
        self.below = torch.arange(1, self.height + 1, device=logits.device).clamp(max=self.height - 1)
        self.beside = torch.arange(1, self.width + 1, device=logits.device).clamp(max=self.width - 1)
        self.first_row, self.rows, vertical = _targets(self.top, down, self.height)
        self.first_column, self.columns, horizontal = _targets(self.left, across, self.width)
        # Weights of the corners at each pixel, (side, P * Q * 4), of rows and of columns apart: products give both.
        shape = (vertical.shape[1], horizontal.shape[1], 2, 2)
        self.vertical = vertical[:, :, None, :, None].expand(-1, *shape).reshape(self.height, -1)
        self.horizontal = horizontal[:, None, :, None, :].expand(-1, *shape).reshape(self.width, -1)
        self.shape = shape[:2]

    def places(self, b: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where the pixels of cells lie in the mask (n, P * Q), and which of them there are."""
        rows, columns = (torch.arange(side, device=y.device) for side in self.shape)
        starts = (b * self.size[0] + self.first_row[y]) * self.size[1] + self.first_column[x]
        offsets = (rows[:, None] * self.size[1] + columns).flatten()
        inside = (rows < self.rows[y, None])[:, :, None] & (columns < self.columns[x, None])[:, None, :]
        return starts[:, None] + offsets, inside.flatten(1)

    def classes(self, winners: Tensor, b: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Class of each pixel of cells.  -> (n, P * Q)"""
        upper, lower = (b * self.height + y) * self.width, (b * self.height + self.below[y]) * self.width
        corners = torch.stack([upper + x, upper + self.beside[x], lower + x, lower + self.beside[x]], dim=1)
        scores = self.scores.index_select(0, corners.flatten()).view(-1, 4, self.num_classes)
        weights = (self.vertical[y] * self.horizontal[x]).view(len(y), self.shape[0] * self.shape[1], 4)
        if self.num_classes <= CANDIDATES:
            return torch.bmm(weights, scores).argmax(dim=2)
        best = winners.view(-1)[corners]
        floor = scores.gather(2, best[:, None, :].expand(-1, 4, -1)).mean(dim=2).amin(dim=1)
        highest, candidates = scores.amax(dim=1).topk(CANDIDATES + 1, dim=1)
        candidates = candidates[:, :CANDIDATES].sort(dim=1).values  # of equal scores the first class wins
        few = scores.gather(2, candidates[:, None, :].expand(-1, 4, -1))
        found = candidates.gather(1, torch.bmm(weights, few).argmax(dim=2))
        many = (highest[:, -1] >= floor).nonzero()[:, 0]
        for rest in torch.split(many, max(1, 4 * CHUNK // (weights.shape[1] * self.num_classes))):
            found[rest] = torch.bmm(weights[rest], scores[rest]).argmax(dim=2)
        return found


def _targets(first: Tensor, weight: Tensor, source: int) -> tuple[Tensor, Tensor, Tensor]:
    """Targets of each source position: the first one, how many, and weights of both neighbours (source, most, 2)."""
    number = torch.bincount(first, minlength=source)
    start = number.cumsum(0) - number
    which = start[:, None] + torch.arange(int(number.max()), device=first.device)
    second = weight[which.clamp(max=len(weight) - 1)]
    return start, number, torch.stack([1 - second, second], dim=2)


def upsample_argmax_reference(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Compute the same by interpolating all B x K x H x W scores first."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(dim=1)


def check_size(logits: Tensor, size: tuple[int, int]) -> None:
    """Raise a ValueError where logits are not (B, K, h, w) or a target size is not positive."""
    if logits.ndim != 4 or 0 in logits.shape[1:]:
        raise ValueError(f"logits must be (batch, classes, height, width), got {tuple(logits.shape)}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a positive (height, width), got {tuple(size)}")
