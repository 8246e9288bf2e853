"""A raster wider than memory would like, in a process of its own whose peak is measured."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

TESTS = Path(__file__).parents[1]
PROGRAM = """
import resource, signal, sys
from pathlib import Path
import torch
from networks import FakeNetwork
from segformer.config import EvalConfig, Preprocessing
from segformer.inference.raster import segment_raster
from segformer.models.build import build_model

source, target, stop, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.manual_seed(0)
preprocessing = Preprocessing(resize="none", multiple=1)
if kind == "fake":  # the subject is reading, blending and writing, not the encoder
    model = FakeNetwork(19, preprocessing)
else:
    model = build_model("mit_b0", num_classes=19, preprocessing=preprocessing).eval()
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
def progress(done, total):
    if stop and done >= stop:
        signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests were started with SIGINT ignored
try:
    segment_raster(model, Path(source), Path(target), EvalConfig(crop=(512, 512), blend="gaussian"), progress=progress)
except KeyboardInterrupt:
    print("interrupted")
print(f"{peak() - before:.0f}")
"""


def write_scene(path: Path, height: int, width: int) -> Path:
    """Stripes of blobs, written tile by tile."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": height, "width": width}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, height, 512):
            rows = min(512, height - top)
            blocks = rng.integers(0, 256, (3, -(-rows // 64), -(-width // 64)), dtype=np.uint8)
            pixels = blocks.repeat(64, axis=1).repeat(64, axis=2)[:, :rows, :width]
            file.write(pixels, window=Window(0, top, width, rows))
    return path


def segment(source: Path, target: Path, stop: int, kind: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source), str(target), str(stop), kind],
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    return run.stdout.split()


def check(tmp_path: Path, height: int, width: int, kind: str) -> None:
    source, target = write_scene(tmp_path / "in.tif", height, width), tmp_path / "out.tif"
    interrupted, first = segment(source, target, height // 2, kind)
    assert interrupted == "interrupted"
    assert not target.exists()
    (second,) = segment(source, target, 0, kind)
    print(f"{height} x {width}, {kind}: peak {first} and {second} MiB above the loaded model")
    assert max(int(first), int(second)) < 2000
    with rasterio.open(target) as file:
        assert (file.height, file.width) == (height, width)
        mask = file.read(1, window=Window(0, height // 2 - 300, width, 600))
    assert len(np.unique(mask)) > 3


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    check(tmp_path, 2_000, 20_000, "fake")


@pytest.mark.slow
def test_20_000_by_20_000_pixels(tmp_path: Path) -> None:
    check(tmp_path, 20_000, 20_000, "real")
