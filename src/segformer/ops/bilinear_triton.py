"""Bilinear interpolation inside the Triton kernels."""

import triton
import triton.language as tl


@triton.jit
def interpolated(upper, lower, west, east, v, u, there):
    """Scores between four corners, in float32: rows ``upper`` and ``lower``, at the offsets ``west`` and ``east``.

    ``v`` and ``u`` are the weights of the lower and the eastern ones; what is not ``there`` is 0.
    """
    a = tl.load(upper + west, mask=there, other=0.0).to(tl.float32)
    c = tl.load(upper + east, mask=there, other=0.0).to(tl.float32)
    d = tl.load(lower + west, mask=there, other=0.0).to(tl.float32)
    e = tl.load(lower + east, mask=there, other=0.0).to(tl.float32)
    above, under = a + u * (c - a), d + u * (e - d)
    return above + v * (under - above)
