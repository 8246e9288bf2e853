"""Interpolated scores of every pixel and class, written out by a kernel, against torch's own interpolation."""

from pathlib import Path

import pytest
import torch

from triton_programs import run

pytest.importorskip("triton")

KERNEL = """
import triton
import triton.language as tl
from segformer.ops.triton.bilinear import interpolated, pixels_of_a_block

@triton.jit
def write_scores(
    scores, result, top, bottom, down, left, right, across, height, width, rows, columns,
    num_classes, PIXELS: tl.constexpr, CLASSES: tl.constexpr,
):
    place, inside, upper, lower, west, east, v, u = pixels_of_a_block(
        scores, top, bottom, down, left, right, across, height, width, rows, columns, num_classes, PIXELS
    )
    k = tl.arange(0, CLASSES)[None, :]
    there = inside[:, None] & (k < num_classes)
    score = interpolated(upper, lower, west + k, east + k, v, u, there)
    tl.store(result + place[:, None] * num_classes + k, score, mask=there)
"""  # triton reads the source of a kernel from its file
PROGRAM = """
sys.path.insert(0, {folder!r})
from kernel import write_scores
from segformer.ops.bilinear import axis
from segformer.ops.triton.bilinear import PIXELS

for logits, size, align_corners in cases():
    batch, classes, height, width = logits.shape
    like = torch.empty(0, device=device)
    vertical, horizontal = (axis(n, m, align_corners, like) for n, m in zip((height, width), size))
    result = torch.full((batch, *size, classes), torch.nan, device=device)
    write_scores[(-(-size[1] // PIXELS), size[0], batch)](
        logits.permute(0, 2, 3, 1).contiguous(), result, *vertical, *horizontal, height, width, *size,
        classes, PIXELS=PIXELS, CLASSES=64,
    )
    expected = interpolate(logits.float(), size, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(result.permute(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-5)
"""


def test_equal_to_torch_in_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    run(PROGRAM.format(folder=str(tmp_path)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_equal_to_torch_on_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    run(PROGRAM.format(folder=str(tmp_path)), "cuda")
