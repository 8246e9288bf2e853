"""From raw pixels to a mask: this package against what a user could pick instead, on one machine in one run.

    python -m benchmarks.inference [--models b0 b2] [--sizes 512x512 1024x2048] [--against all|NAME ...]
                                   [--rounds 20] [--classes 150] [--weights DIR] [--out FILE.json]

One set of weights is shared by all: a model of toytown's eight classes, trained here for some hundred steps (or the
model folders b0, b2 ... below --weights), its head widened to --classes by classes that never win.  Masks are therefore
like real ones, whose borders are few; the share of mixed cells (2 x 2 neighbouring scores with different winners) is a
column.  The picture is a drawn street, enlarged.

Every way takes a uint8 tensor (1, 3, H, W) and gives class indices (1, H, W): normalise, model, bilinear upsampling,
arg-max.  Ways of transformers and of segmentation-models-pytorch do so as their documentation shows; ONNX and OpenVINO
graphs of theirs contain all of it.  All take turns within every round; times are of the wall, medians; a ratio is that
of medians.  `equal` is the share of pixels with the class that transformers in fp32 gives.  Memory is the highest
resident size of a process of its own while it segments twice, less that with the model loaded and warmed on a small
image.  Multiply-accumulates are counted by torch; the peak is that of a product of 4096 x 4096 matrices in this run.
"""

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import segformer
from benchmarks.loader import describe_machine
from benchmarks.training import resident
from benchmarks.ways import WAYS, Way, available
from segformer.analysis.complexity import measure as count
from segformer.config import ModelConfig, default_palette
from segformer.data.street_scene import draw_scene
from segformer.files import read_json, write_json
from segformer.models.segmenter import Segmenter
from segformer.ops.upsample_argmax import upsample_argmax
from segformer.recipes import RECIPES

BASELINE = "transformers eager fp32"
PACKAGES = ("segformer", "torch", "transformers", "segmentation-models-pytorch", "onnxruntime", "openvino")


def main(
    models: tuple[str, ...] = ("b0", "b2"),
    sizes: tuple[str, ...] = ("512x512",),
    against: tuple[str, ...] = ("all",),
    rounds: int = 20,
    classes: int = 150,
    weights: Path = Path("runs/benchmark"),
    memory: bool = True,
    extend: bool = False,
    out: Path | None = None,
) -> None:
    """Measure, print tables, and write them as JSON where ``out`` says, after what it holds with ``extend``."""
    names = [name for name in WAYS if "all" in against or name in against or name == BASELINE]
    missing = {name: why for name in names if (why := available(name))}
    for name, why in missing.items():
        print(f"left out: {name} ({why})")
    rows = []
    for model in models:
        trained = widened(trained_model(model, weights), classes)
        with TemporaryDirectory() as place:
            folder = Path(place)
            write_models(trained, folder)
            for size in sizes:
                height, width = map(int, size.split("x"))
                wanted = [name for name in names if name not in missing]
                rows.append(measure(folder, trained, model, (height, width), wanted, rounds, memory))
                print_row(rows[-1], Console(width=150))
    if out is not None:
        known = read_json(out)["rows"] if extend and out.is_file() else []
        write_json(out, {"machine": machine(), "rows": known + rows})


def machine() -> dict[str, Any]:
    return {
        **describe_machine(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in PACKAGES},
        "system": platform.system(),
    }


def trained_model(name: str, weights: Path) -> Segmenter:
    """Return the model below ``weights``; where there is none, train one on toytown and keep it there."""
    folder = weights / name
    if not folder.is_dir():
        print(f"training mit_{name} on toytown into {folder}")
        recipe = RECIPES["toytown_b0"]
        train = replace(recipe.train, steps=150, eval_every=150)
        recipe = replace(recipe, name=f"toytown_{name}", model=ModelConfig.of(f"mit_{name}"), train=train)
        with TemporaryDirectory() as place:
            segformer.train(recipe, Path(place) / "run")
            segformer.save(segformer.load(Path(place) / "run" / "best"), folder)
    return segformer.load(folder)


def widened(model: Segmenter, classes: int) -> Segmenter:
    """Return the model with more classes, which never win; its images are not resized."""
    card, own = model.card, len(model.card.classes)
    pixels = replace(card.preprocessing, resize="none", multiple=1)
    wide = segformer.build_model(card.model, num_classes=classes, preprocessing=pixels).eval()
    state = model.state_dict()
    weight, bias = (wide.decoder.classifier.state_dict()[name] for name in ("weight", "bias"))
    torch.manual_seed(0)
    weight[own:] = state["decoder.classifier.weight"][torch.randint(own, (classes - own,))]  # as sure, and as varied
    weight[own:] *= 0.5
    bias[own:] = -20.0
    weight[:own], bias[:own] = state["decoder.classifier.weight"], state["decoder.classifier.bias"]
    wide.load_state_dict(state | {"decoder.classifier.weight": weight, "decoder.classifier.bias": bias})
    wide.card = replace(wide.card, palette=default_palette(classes))
    return wide


def write_models(model: Segmenter, folder: Path) -> None:
    segformer.save(model, folder / "ours")
    for layout in ("hf", "smp"):
        segformer.convert(folder / "ours", folder / layout, layout)


def picture(height: int, width: int) -> Tensor:
    """A drawn street, (1, 3, H, W) uint8."""
    pixels, _ = draw_scene(100_003)
    large = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(large)).permute(2, 0, 1)[None].contiguous()


def measure(
    folder: Path, model: Segmenter, name: str, size: tuple[int, int], ways: list[str], rounds: int, memory: bool
) -> dict[str, Any]:
    """All ways on one picture."""
    image = picture(*size)
    runs: dict[str, Way] = {way: WAYS[way](folder, size) for way in ways}
    masks = {way: run(image) for way, run in runs.items()}
    for run in runs.values():
        run(image)
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    peaks: list[float] = []
    matrix = torch.randn(4096, 4096)
    for turn in range(rounds):
        for way in list(runs)[:: 1 if turn % 2 else -1]:
            seconds[way].append(timed(lambda run=runs[way]: run(image)))
        if turn % 5 == 0:
            peaks.append(4096**3 / timed(lambda: matrix @ matrix))
    macs = count(model.card.model, len(model.card.classes), size)
    stages = stages_of(model, image, max(5, rounds // 2))
    del runs
    medians = {way: median(values) for way, values in seconds.items()}
    return {
        "model": name,
        "size": f"{size[0]}x{size[1]}",
        "classes": len(model.card.classes),
        "rounds": rounds,
        "mixed": mixed_share(model, image),
        "seconds": medians,
        "times as fast": {way: medians[BASELINE] / value for way, value in medians.items()},
        "equal": {way: float((mask == masks[BASELINE]).float().mean()) for way, mask in masks.items()},
        "memory, MiB": {way: memory_of(way, folder, size) for way in ways} if memory else {},
        "stages, ms": {stage: 1000 * value for stage, value in stages.items()},
        "GMAC": {"ours": macs.macs / 1e9, "as printed": macs.macs_literal / 1e9},
        "peak GMAC/s": max(peaks) / 1e9,
        "share of the peak": macs.macs / (stages["encoder"] + stages["decoder"]) / max(peaks),
    }


def timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@torch.inference_mode()
def stages_of(model: Segmenter, image: Tensor, rounds: int) -> dict[str, float]:
    """Seconds of the parts of ours, eager and in fp32."""
    fused, size = model.fuse(), (image.shape[2], image.shape[3])
    pixels = fused.normalize(image)
    maps = fused.encoder(pixels)
    logits = fused.decoder(maps)
    parts: dict[str, Callable[[], Any]] = {
        "preprocessing": lambda: fused.normalize(image),
        "encoder": lambda: fused.encoder(pixels),
        "decoder": lambda: fused.decoder(maps),
        "upsampling + arg-max": lambda: upsample_argmax(logits, size),
    }
    return {name: median(timed(part) for _ in range(rounds)) for name, part in parts.items()}


@torch.inference_mode()
def mixed_share(model: Segmenter, image: Tensor) -> float:
    """Share of the cells between four neighbouring scores that do not all have the same winner."""
    winners = model.fuse()(model.normalize(image)).argmax(dim=1)
    a, b, c, d = winners[:, 1:, 1:], winners[:, :-1, 1:], winners[:, 1:, :-1], winners[:, :-1, :-1]
    return float(((a != b) | (a != c) | (a != d)).float().mean())


def memory_of(way: str, folder: Path, size: tuple[int, int]) -> float:
    """MiB that a way takes while it segments, in a process of its own."""
    child = [sys.executable, "-m", "benchmarks.inference", "--memory", way, str(folder), *map(str, size)]
    found = subprocess.run(child, check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def peak_of(way: str, folder: Path, size: tuple[int, int]) -> float:
    """MiB between the loaded model and the highest point of two calls."""
    run, image = WAYS[way](folder, size), picture(*size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    run(image), run(image)
    return (resident("VmHWM") - before) / 2**10


def print_row(row: dict[str, Any], console: Console) -> None:
    title = f"mit_{row['model']}, {row['size']}: {row['mixed']:.0%} mixed cells"
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for heading in ("ms", "times as fast", "equal pixels", "memory, MiB"):
        table.add_column(heading, justify="right")
    for way, seconds in row["seconds"].items():
        memory = f"{row['memory, MiB'][way]:.0f}" if row["memory, MiB"] else "-"
        figures = (f"{1000 * seconds:.0f}", f"{row['times as fast'][way]:.2f}", f"{row['equal'][way]:.2%}", memory)
        table.add_row(way, *figures)
    console.print(table)
    print("  ".join(f"{stage} {value:.1f} ms" for stage, value in row["stages, ms"].items()))
    print(
        f"ours eager fp32: {row['GMAC']['ours']:.1f} GMAC at {row['share of the peak']:.0%} of this machine's "
        f"{row['peak GMAC/s']:.0f} GMAC/s (the equation as printed: {row['GMAC']['as printed']:.1f} GMAC)"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(peak_of(sys.argv[2], Path(sys.argv[3]), (int(sys.argv[4]), int(sys.argv[5]))))
    else:
        tyro.cli(main)
