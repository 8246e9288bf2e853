"""Programs that call Triton kernels, each in its own process, because importing Triton chooses its interpreter."""

import os
import subprocess
import sys

CASES = """
import sys
import torch
from torch.nn.functional import interpolate

device = sys.argv[1]
torch.manual_seed(int(sys.argv[2]))

def cases():
    for batch, classes, source, size, align_corners in (
        (2, 5, (3, 4), (12, 16), False), (1, 40, (3, 3), (7, 20), True), (1, 3, (8, 8), (5, 4), False)
    ):
        for dtype in (torch.float32, torch.bfloat16):
            yield torch.randn(batch, classes, *source, device=device).to(dtype), size, align_corners
"""


def run(program: str, device: str = "cpu", seed: int = 0) -> None:
    """Run a program after ``CASES``, on the CPU in the interpreter; it fails where an assertion of it does."""
    environment = os.environ | ({"TRITON_INTERPRET": "1"} if device == "cpu" else {})
    command = [sys.executable, "-c", f"{CASES}\n{program}\nprint('equal')", device, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
