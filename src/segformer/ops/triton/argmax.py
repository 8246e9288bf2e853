"""``upsample_argmax`` as one Triton kernel, which reads the low-resolution scores and writes only the mask."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from segformer.ops.bilinear import axis
from segformer.ops.triton.bilinear import CLASSES, PIXELS, interpolated, pixels_of_a_block


def upsample_argmax_triton(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Return the class of every pixel after upsampling to ``size`` = (H, W).  (B, K, h, w) -> (B, H, W) int64"""
    batch, num_classes, height, width = logits.shape
    like = torch.empty(0, device=logits.device)
    scores = logits.permute(0, 2, 3, 1).contiguous()  # the scores of one pixel are adjacent in memory
    top, bottom, down = axis(height, size[0], align_corners, like)
    left, right, across = axis(width, size[1], align_corners, like)
    mask = torch.empty(batch, *size, dtype=torch.int64, device=logits.device)
    grid = (triton.cdiv(size[1], PIXELS), size[0], batch)
    _argmax_kernel[grid](
        scores, mask, top, bottom, down, left, right, across, height, width, size[0], size[1],
        num_classes, PIXELS=PIXELS, CLASSES=CLASSES,
    )  # fmt: skip
    return mask


@triton.jit
def _argmax_kernel(
    scores, mask, top, bottom, down, left, right, across, height, width, rows, columns,
    num_classes, PIXELS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    place, inside, upper, lower, west, east, v, u = pixels_of_a_block(
        scores, top, bottom, down, left, right, across, height, width, rows, columns, num_classes, PIXELS
    )
    best = tl.full((PIXELS,), float("-inf"), tl.float32)
    winner = tl.zeros((PIXELS,), tl.int32)
    for start in range(0, num_classes, CLASSES):
        k = start + tl.arange(0, CLASSES)[None, :]
        there = inside[:, None] & (k < num_classes)
        score = tl.where(there, interpolated(upper, lower, west + k, east + k, v, u, there), float("-inf"))
        highest, nth = tl.max(score, axis=1, return_indices=True, return_indices_tie_break_left=True)
        better = highest > best
        best = tl.where(better, highest, best)
        winner = tl.where(better, start + nth, winner)
    tl.store(mask + place, winner.to(tl.int64), mask=inside)
