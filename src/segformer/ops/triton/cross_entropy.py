"""The summed loss and the gradient of ``upsample_cross_entropy`` as two Triton kernels.

The logits are never stored at the size of the labels.  The first kernel processes each labeled pixel, and stores its
loss and the logarithm of its softmax denominator.  The second kernel processes each position of the logits, and adds up
the gradient from the labeled pixels around it.  It needs no atomic additions, so its result is reproducible.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from segformer.ops.bilinear import axis
from segformer.ops.triton.bilinear import CLASSES, PIXELS, interpolated, pixels_of_a_block


def cross_entropy_sums(
    logits: Tensor, target: Tensor, ignore_index: int, weights: Tensor | None, align_corners: bool, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the summed loss of logits (B, K, h, w) upsampled to labels (B, H, W), and its gradient (B, K, h, w).

    If ``gradient`` is False, the second value is None.
    """
    batch, num_classes, height, width = logits.shape
    rows, columns = target.shape[1:]
    like = torch.empty(0, device=logits.device)
    scores = logits.permute(0, 2, 3, 1).contiguous()
    vertical = axis(height, rows, align_corners, like)
    horizontal = axis(width, columns, align_corners, like)
    factors = torch.ones(num_classes, device=logits.device) if weights is None else weights.float()
    losses = torch.empty(batch, rows, columns, device=logits.device)
    normalizers = torch.empty_like(losses)
    target = target.contiguous()
    grid = (triton.cdiv(columns, PIXELS), rows, batch)
    _loss_kernel[grid](
        scores, target, factors, losses, normalizers, *vertical, *horizontal, height, width, rows, columns,
        num_classes, ignore_index, PIXELS=PIXELS, CLASSES=CLASSES,
    )  # fmt: skip
    total = losses.double().sum().float()
    if not gradient:
        return total, None
    slopes = torch.empty_like(scores, dtype=torch.float32)
    spans = (*_span(vertical, height), *_span(horizontal, width))
    grid = (width, height, batch)
    _gradient_kernel[grid](
        scores, target, factors, normalizers, slopes, *vertical, *horizontal, *spans, height, width, rows, columns,
        num_classes, ignore_index, CLASSES=triton.next_power_of_2(num_classes),
    )  # fmt: skip
    return total, slopes.permute(0, 3, 1, 2).to(logits.dtype)


def _span(neighbors: tuple[Tensor, Tensor, Tensor], source: int) -> tuple[Tensor, Tensor]:
    """Return which targets depend on each source position: the index of the first one, and of the last one plus 1."""
    first, second, _ = neighbors
    places = torch.arange(source, device=first.device)
    return torch.searchsorted(second, places), torch.searchsorted(first, places, right=True)


@triton.jit
def _loss_kernel(
    scores, target, factors, losses, normalizers, top, bottom, down, left, right, across, height, width, rows, columns,
    num_classes, ignore_index, PIXELS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    place, inside, upper, lower, west, east, v, u = pixels_of_a_block(
        scores, top, bottom, down, left, right, across, height, width, rows, columns, num_classes, PIXELS
    )
    label = tl.load(target + place, mask=inside, other=ignore_index).to(tl.int32)
    highest = tl.full((PIXELS,), float("-inf"), tl.float32)
    total = tl.zeros((PIXELS,), tl.float32)
    own = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, num_classes, CLASSES):
        k = start + tl.arange(0, CLASSES)[None, :]
        there = inside[:, None] & (k < num_classes)
        score = interpolated(upper, lower, west + k, east + k, v, u, there)
        own += tl.sum(tl.where(k == label[:, None], score, 0.0), axis=1)
        score = tl.where(k < num_classes, score, float("-inf"))
        higher = tl.maximum(highest, tl.max(score, axis=1))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(score - higher[:, None]), axis=1)
        highest = higher
    normalizer = highest + tl.log(total)
    counts = inside & (label != ignore_index)
    factor = tl.load(factors + label, mask=counts, other=0.0)
    tl.store(losses + place, tl.where(counts, factor * (normalizer - own), 0.0), mask=inside)
    tl.store(normalizers + place, normalizer, mask=inside)


@triton.jit
def _gradient_kernel(
    scores, target, factors, normalizers, slopes, top, bottom, down, left, right, across,
    first_row, last_row, first_column, last_column, height, width, rows, columns,
    num_classes, ignore_index, CLASSES: tl.constexpr,
):  # fmt: skip
    j, i, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    k = tl.arange(0, CLASSES)
    there = k < num_classes
    slope = tl.zeros((CLASSES,), tl.float32)
    for y in range(tl.load(first_row + i), tl.load(last_row + i)):
        v, north, south = tl.load(down + y), tl.load(top + y), tl.load(bottom + y)
        share_y = tl.where(north == i, 1.0 - v, 0.0) + tl.where(south == i, v, 0.0)
        upper = scores + (b * height + north) * width * num_classes
        lower = scores + (b * height + south) * width * num_classes
        for x in range(tl.load(first_column + j), tl.load(last_column + j)):
            u, west, east = tl.load(across + x), tl.load(left + x), tl.load(right + x)
            share = share_y * (tl.where(west == j, 1.0 - u, 0.0) + tl.where(east == j, u, 0.0))
            place = (b * rows + y) * columns + x
            label = tl.load(target + place).to(tl.int32)
            counts = label != ignore_index
            factor = share * tl.load(factors + label, mask=counts, other=0.0)
            score = interpolated(upper, lower, west * num_classes + k, east * num_classes + k, v, u, there)
            chance = tl.exp(score - tl.load(normalizers + place))
            slope += factor * (chance - tl.where(k == label, 1.0, 0.0))
    tl.store(slopes + ((b * height + i) * width + j) * num_classes + k, slope, mask=there)
