"""Bilinear interpolation for the Triton kernels: which pixels a block processes, and how scores are interpolated."""

import triton
import triton.language as tl

PIXELS = 32  # pixels that a block processes
CLASSES = 32  # classes that a block processes at a time


@triton.jit
def pixels_of_a_block(
    scores, top, bottom, down, left, right, across, height, width, rows, columns, num_classes, PIXELS: tl.constexpr
):
    """Find the pixels that this block processes; all of them are in one row of the target.

    Returns the index of each pixel, whether it is inside the row, and the first six arguments of ``interpolated``.
    """
    y, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = x < columns
    west = tl.load(left + x, mask=inside, other=0)[:, None] * num_classes
    east = tl.load(right + x, mask=inside, other=0)[:, None] * num_classes
    upper = scores + (b * height + tl.load(top + y)) * width * num_classes
    lower = scores + (b * height + tl.load(bottom + y)) * width * num_classes
    v, u = tl.load(down + y), tl.load(across + x, mask=inside, other=0.0)[:, None]
    return (b * rows + y) * columns + x, inside, upper, lower, west, east, v, u


@triton.jit
def interpolated(upper, lower, west, east, v, u, there):
    """Interpolate scores in float32 between their four neighbors; scores outside the mask ``there`` are 0.

    ``upper`` and ``lower`` point to two rows, and ``west`` and ``east`` are offsets in a row.  ``v`` is the weight of
    the lower row, and ``u`` is the weight of the eastern column.
    """
    a = tl.load(upper + west, mask=there, other=0.0).to(tl.float32)
    c = tl.load(upper + east, mask=there, other=0.0).to(tl.float32)
    d = tl.load(lower + west, mask=there, other=0.0).to(tl.float32)
    e = tl.load(lower + east, mask=there, other=0.0).to(tl.float32)
    above, under = a + u * (c - a), d + u * (e - d)
    return above + v * (under - above)
