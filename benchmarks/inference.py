"""From raw pixels to a mask: this package against what a user could pick instead, on one machine in one run.

    python -m benchmarks.inference [--models b0 b2] [--sizes 512x512 1024x2048] [--against all|WORDS ...]
                                   [--device cpu|cuda] [--batch 1] [--rounds 20] [--classes 150] [--no-memory]
                                   [--weights DIR] [--out FILE.json [--extend]]

One set of weights is shared by all: a model of toytown's eight classes, trained here for some hundred steps (or the
model folders b0, b2 ... below --weights), its head widened to --classes by classes that never win.  Masks are therefore
like real ones, whose borders are few; the share of mixed cells (2 x 2 neighbouring scores with different winners) is a
column.  The pictures are drawn streets, enlarged.

Every way takes a uint8 tensor (B, 3, H, W), on the device, and gives class indices (B, H, W): normalise, model,
bilinear upsampling, arg-max.  Ways of transformers and of segmentation-models-pytorch do so as their documentation
shows; ONNX and OpenVINO graphs of theirs contain all of it.  On a GPU, what is compiled runs as CUDA graphs,
transformers' tuned ("max-autotune"), and TF32 is as torch sets it.  All take turns within every round; times are of
the wall, until the device is done, medians; a ratio is that of medians.  `equal` is the share of pixels with the class
that transformers in fp32 gives.

Stages take turns, too.  Multiply-accumulates are counted by torch; the peak is that of a product of 4096 x 4096 fp32
matrices among those turns, and its share what encoder and decoder of ours, or the graph that holds them, reach of it.
Memory is what two calls take at most above the loaded model, in a process of its own: resident, or reserved on a GPU.
From a file: benchmarks/jpeg.py.
"""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import segformer
from benchmarks import jpeg
from benchmarks.machine import (
    WARM_UP,
    Device,
    by_way,
    check_models,
    command_line,
    describe_run,
    in_ms,
    interleaved,
    memory_of,
    sides,
)
from benchmarks.ways import DECODER, ENCODER, GRAPH, WAYS, Task, Way, available, ways_on
from segformer.config import default_palette
from segformer.files import read_json, write_json
from segformer.models.build import model_config
from segformer.models.segmenter import Segmenter
from segformer.paper.complexity import measure as count
from segformer.recipes import RECIPES

BASELINE = "transformers eager fp32"
PACKAGES = ("segformer", "torch", "transformers", "segmentation-models-pytorch", "onnxruntime", "openvino")
SIDE = 4096  # of the product that the peak is measured by
PEAK = ("peak", "product")
SETTING = ("model", "size", "device", "batch", "classes")  # what tells rows apart


def main(
    models: tuple[str, ...] = ("b0", "b2"),
    sizes: tuple[str, ...] = ("512x512",),
    against: tuple[str, ...] = ("all",),
    device: Device = "cpu",
    batch: int = 1,
    rounds: int = 20,
    classes: int = 150,
    weights: Path = Path("runs/benchmark"),
    memory: bool = True,
    extend: bool = False,
    out: Path | None = None,
) -> None:
    """Measure, print tables, and write them as JSON where ``out`` says, with ``extend`` beside what it holds."""
    check_models(models)
    pixels = [sides(size) for size in sizes]
    names = wanted_ways(device, against)
    missing = {name: why for name in names if (why := available(name))}
    for name, why in missing.items():
        print(f"left out: {name} ({why})")
    wanted = [name for name in names if name not in missing]
    rows = read_json(out)["rows"] if extend and out is not None and out.is_file() else []
    for model in models:
        trained = widened(trained_model(model, weights), classes)
        with TemporaryDirectory() as place:
            write_models(trained, Path(place))
            for size in pixels:
                task = Task(Path(place), size, batch, device)
                row = {"model": model, **measure(task, trained.to(device), wanted, rounds, memory)}
                rows = with_row(rows, row)
                print_row(row, Console(width=150))
                if out is not None:  # at once: what follows may be cut off
                    write_json(out, {"machine": describe_run(PACKAGES, device), "rows": rows})


def wanted_ways(device: Device, against: tuple[str, ...]) -> list[str]:
    """The baseline, and the ways whose names hold one of the words."""
    every = "all" in against
    return [name for name in ways_on(device) if every or name == BASELINE or any(word in name for word in against)]


def with_row(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a row, in the place of what was measured before of the same setting."""
    setting = [row[name] for name in SETTING]
    return [known for known in rows if [known[name] for name in SETTING] != setting] + [row]


def trained_model(name: str, weights: Path) -> Segmenter:
    """Return the model below ``weights``; where there is none, train one on toytown and keep it there."""
    folder = weights / name
    if not folder.is_dir():
        print(f"training mit_{name} on toytown into {folder}")
        recipe = RECIPES["toytown_b0"]
        train = replace(recipe.train, steps=150, eval_every=150)
        recipe = replace(recipe, name=f"toytown_{name}", model=model_config(f"mit_{name}"), train=train)
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


def pictures(size: tuple[int, int], batch: int = 1) -> Tensor:
    """Drawn streets, (B, 3, H, W) uint8."""
    drawn = [jpeg.street(size, 100_003 + k) for k in range(batch)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def measure(task: Task, model: Segmenter, names: list[str], rounds: int, memory: bool) -> dict[str, Any]:
    """All ways on one batch."""
    torch.compiler.reset()  # else what was compiled for other sizes counts against the limit of each function
    images = pictures(task.size, task.batch).to(task.device)
    ways = {name: WAYS[name](task) for name in names}
    masks = {name: way.mask(images).cpu() for name, way in ways.items()}  # a CUDA graph writes its next mask over this
    runs = {name: partial(way.mask, images) for name, way in ways.items()}
    for run in runs.values():
        for _ in range(WARM_UP - 1):
            run()
    seconds = {name: median(values) for name, values in interleaved(runs, rounds, task.device).items()}
    stages, peak = stages_of(ways, images, max(5, rounds // 2), task.device)
    del runs, ways
    if task.device == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()
    classes = len(model.card.classes)
    macs = count(model.card.model, classes, task.size)
    return {
        "size": f"{task.size[0]}x{task.size[1]}",
        "device": task.device,
        "batch": task.batch,
        "classes": classes,
        "rounds": rounds,
        "mixed": mixed_share_of(model, images[:1]),
        "seconds": seconds,
        "times as fast": {name: seconds[BASELINE] / value for name, value in seconds.items()},
        "equal": {name: float((mask == masks[BASELINE]).float().mean()) for name, mask in masks.items()},
        "memory, MiB": {name: memory_in_a_process(name, task) for name in names} if memory else {},
        "stages, ms": in_ms(stages),
        "from a JPEG file": jpeg.measure(model, task.size, max(5, rounds // 2), task.device),
        "GMAC": {"ours": task.batch * macs.macs / 1e9, "as printed": task.batch * macs.macs_literal / 1e9},
        "peak GMAC/s": peak / 1e9,
        "share of the peak": shares_of_the_peak(stages, task.batch * macs.macs, peak),
    }


@torch.inference_mode()
def stages_of(
    ways: dict[str, Way], images: Tensor, rounds: int, device: Device
) -> tuple[dict[str, dict[str, float]], float]:
    """Seconds of the stages of every way that has some, and the peak in multiply-accumulates a second."""
    matrix = torch.randn(SIDE, SIDE, device=device)
    runs: dict[tuple[str, str], partial[Any]] = {PEAK: partial(torch.matmul, matrix, matrix)}
    for name, way in ways.items():
        given: Any = images
        for stage, function in way.stages.items():
            runs[name, stage] = partial(function, given)
            given = function(given)
            given = given.clone() if isinstance(given, Tensor) else given  # graphs write their next result over this
    seconds = interleaved(runs, rounds, device)
    peak = SIDE**3 / median(seconds.pop(PEAK))
    return by_way(seconds), peak


def shares_of_the_peak(stages: dict[str, dict[str, float]], macs: int, peak: float) -> dict[str, float]:
    """What the model part of each of ours in fp32 reaches."""
    model_seconds = {
        way: sum(value for stage, value in parts.items() if stage in (ENCODER, DECODER, GRAPH))
        for way, parts in stages.items()
        if way.startswith("ours") and way.endswith("fp32")
    }
    return {way: macs / value / peak for way, value in model_seconds.items()}


@torch.inference_mode()
def mixed_share_of(model: Segmenter, images: Tensor) -> float:
    return mixed_share(model.fuse()(model.normalize(images)))


def mixed_share(logits: Tensor) -> float:
    """Share of the cells between four neighbouring scores that do not all have the same winner."""
    winners = logits.argmax(dim=1)
    a, b, c, d = winners[:, 1:, 1:], winners[:, :-1, 1:], winners[:, 1:, :-1], winners[:, :-1, :-1]
    return float(((a != b) | (a != c) | (a != d)).float().mean())


def memory_in_a_process(way: str, task: Task) -> float:
    """MiB that a way takes while it segments, in a process of its own."""
    arguments = [way, str(task.folder), *map(str, (*task.size, task.batch)), task.device]
    child = [sys.executable, "-m", "benchmarks.inference", "--memory", *arguments]
    found = subprocess.run(child, check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def print_memory(way: str, folder: str, height: str, width: str, batch: str, device: Device) -> None:
    """What a process of ``memory_in_a_process`` does."""
    task = Task(Path(folder), (int(height), int(width)), int(batch), device)
    run, images = WAYS[way](task).mask, pictures(task.size, task.batch).to(device)
    print(memory_of(partial(run, images), device))


def print_row(row: dict[str, Any], console: Console) -> None:
    title = f"mit_{row['model']}, {row['size']}, batch {row['batch']}, {row['device']}: {row['mixed']:.0%} mixed cells"
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for heading in ("ms", "times as fast", "equal pixels", "memory, MiB"):
        table.add_column(heading, justify="right")
    for way, seconds in row["seconds"].items():
        memory = f"{row['memory, MiB'][way]:.0f}" if row["memory, MiB"] else "-"
        figures = (f"{1000 * seconds:.1f}", f"{row['times as fast'][way]:.2f}", f"{row['equal'][way]:.2%}", memory)
        table.add_row(way, *figures)
    console.print(table)
    print_stages("stages, ms", row["stages, ms"], console)
    print_stages(f"from a JPEG file of {jpeg.SOURCE[0]} x {jpeg.SOURCE[1]}, ms", row["from a JPEG file"]["ms"], console)
    shares = ", ".join(f"{way} {share:.0%}" for way, share in row["share of the peak"].items())
    print(
        f"{row['GMAC']['ours']:.1f} GMAC (the equation as printed: {row['GMAC']['as printed']:.1f}); "
        f"of this machine's {row['peak GMAC/s']:.0f} GMAC/s: {shares}"
    )


def print_stages(title: str, stages: dict[str, dict[str, float]], console: Console) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    headings = list(dict.fromkeys(stage for parts in stages.values() for stage in parts))
    for heading in headings:
        table.add_column(heading, justify="right")
    for way, parts in stages.items():
        table.add_row(way, *(f"{parts[stage]:.2f}" if stage in parts else "-" for stage in headings))
    console.print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print_memory(*sys.argv[2:])  # type: ignore[arg-type]
    else:
        command_line(main)
