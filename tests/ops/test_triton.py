"""The Triton kernels against their references: in Triton's interpreter, and on a GPU where there is one."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

PROGRAM = """
import sys
import torch
from segformer.ops.upsample_argmax import upsample_argmax_reference
from segformer.ops.triton.argmax import upsample_argmax_triton
from segformer.ops.upsample_cross_entropy import upsample_cross_entropy_reference
from segformer.ops.triton.cross_entropy import cross_entropy_sums

device = sys.argv[1]
torch.manual_seed(int(sys.argv[2]))
cases = ((2, 5, (3, 4), (12, 16), False), (1, 40, (3, 3), (7, 20), True), (1, 3, (8, 8), (5, 4), False))
for batch, classes, source, size, align_corners in cases:
    for dtype in (torch.float32, torch.bfloat16):
        for weights in (None, torch.rand(classes, device=device)):
            logits = torch.randn(batch, classes, *source, device=device).to(dtype)
            mask = upsample_argmax_triton(logits, size, align_corners)
            expected = torch.nn.functional.interpolate(
                logits.double(), size, mode="bilinear", align_corners=align_corners
            )
            second, best = expected.topk(2, dim=1).values.unbind(1)[::-1]
            assert (mask == expected.argmax(1))[best - second > 1e-5].all(), "arg-max"
            target = torch.randint(0, classes, (batch, *size), device=device, dtype=torch.uint8)
            target[torch.rand(target.shape, device=device) < 0.2] = 255
            known = logits.float().clone().requires_grad_()
            loss = upsample_cross_entropy_reference(known, target, 255, weights, "sum", align_corners)
            loss.backward()
            total, slope = cross_entropy_sums(logits.float(), target, 255, weights, align_corners, True)
            torch.testing.assert_close(total, loss.detach(), rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(slope, known.grad, rtol=1e-4, atol=1e-5)
print("equal")
"""


def check(device: str, seed: int, **environment: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, device, str(seed)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert run.stdout.strip() == "equal", run.stderr[-2000:]


def test_equal_to_the_references_in_the_interpreter() -> None:
    check("cpu", 0, TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_the_references_on_a_gpu(seed: int) -> None:
    check("cuda", seed)
