"""Bilinear interpolation inside the Triton kernels: the pixels of a block and their scores."""

import triton
import triton.language as tl

PIXELS = 32  # pixels of a block
CLASSES = 32  # classes that a block processes at a time


@triton.jit
def pixels_of_a_block(
    scores, top, bottom, down, left, right, across, height, width, rows, columns, num_classes, PIXELS: tl.constexpr
):
    """Return the indices of pixels of a target row, whether they are inside, and the arguments of ``interpolated``."""
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
    """Return scores between four corners in float32: rows ``upper`` and ``lower`` at the offsets ``west`` and ``east``.

    ``v`` and ``u`` are the weights of the lower row and of the eastern column.  Scores that are not ``there`` are 0.
    """
    a = tl.load(upper + west, mask=there, other=0.0).to(tl.float32)
    c = tl.load(upper + east, mask=there, other=0.0).to(tl.float32)
    d = tl.load(lower + west, mask=there, other=0.0).to(tl.float32)
    e = tl.load(lower + east, mask=there, other=0.0).to(tl.float32)
    above, under = a + u * (c - a), d + u * (e - d)
    return above + v * (under - above)
