"""The kernel against float64: in Triton's interpreter, and on a GPU where there is one."""

import pytest
import torch

from triton_programs import run

pytest.importorskip("triton")

PROGRAM = """
from segformer.ops.triton.argmax import upsample_argmax_triton

for logits, size, align_corners in cases():
    mask = upsample_argmax_triton(logits, size, align_corners)
    expected = interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners)
    second, best = expected.topk(2, dim=1).values.unbind(1)[::-1]
    assert mask.dtype == torch.int64
    assert (mask == expected.argmax(1))[best - second > 1e-5].all()
    equal = torch.zeros_like(logits)
    equal[:, 1:3] = 1.0  # the first of equal scores wins
    assert (upsample_argmax_triton(equal, size, align_corners) == 1).all()
"""


def test_equal_to_the_reference_in_the_interpreter() -> None:
    run(PROGRAM)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_reference_on_a_gpu(seed: int) -> None:
    run(PROGRAM, "cuda", seed)
