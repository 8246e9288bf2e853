"""The kernels against their reference: in Triton's interpreter, and on a GPU where there is one."""

import pytest
import torch

from triton_programs import run

pytest.importorskip("triton")

PROGRAM = """
from segformer.ops.triton.cross_entropy import cross_entropy_sums
from segformer.ops.upsample_cross_entropy import upsample_cross_entropy_reference

for logits, size, align_corners in cases():
    classes = logits.shape[1]
    for weights in (None, torch.rand(classes, device=device)):
        target = torch.randint(0, classes, (len(logits), *size), device=device, dtype=torch.uint8)
        target[torch.rand(target.shape, device=device) < 0.2] = 255
        known = logits.float().clone().requires_grad_()
        loss = upsample_cross_entropy_reference(known, target, 255, weights, "sum", align_corners)
        loss.backward()
        total, slope = cross_entropy_sums(logits.float(), target, 255, weights, align_corners, True)
        torch.testing.assert_close(total, loss.detach(), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(slope, known.grad, rtol=1e-4, atol=1e-5)
        again, none = cross_entropy_sums(logits.float(), target, 255, weights, align_corners, False)
        assert torch.equal(again, total) and none is None
"""


def test_equal_to_the_reference_in_the_interpreter() -> None:
    run(PROGRAM)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_reference_on_a_gpu(seed: int) -> None:
    run(PROGRAM, "cuda", seed)
