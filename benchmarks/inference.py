"""Raw pixels to a mask: this package against the alternatives, on one machine in one run.

    python -m benchmarks.inference [--models b0 b2] [--sizes 512x512 1024x2048] [--against all|WORDS ...]
                                   [--device cpu|cuda] [--batch 1] [--rounds 20] [--classes 150] [--no-memory]
                                   [--weights DIR] [--out FILE.json [--extend]]

All pipelines share one set of weights: a model of toytown's eight classes that is trained here for 150 steps (or the
model folders b0, b2 ... below --weights), with its head widened to --classes by classes that never win.  Its masks
therefore have as few borders as real ones; the share of mixed cells (2 x 2 neighboring logits with different winners)
is reported.  The images are drawn streets, enlarged.

Each pipeline takes a uint8 tensor (B, 3, H, W) on the device and returns class indices (B, H, W): it normalizes, runs
the model, upsamples bilinearly and takes the arg-max.  The pipelines of transformers and segmentation-models-pytorch
do so as their documentation shows; their ONNX and OpenVINO graphs contain all of it.  On a GPU, compiled models run as
CUDA graphs, transformers' tuned ("max-autotune"), and TF32 is as torch sets it.  All pipelines take turns within every
round.  Times are medians of wall-clock times until the device has finished, and ratios are ratios of medians.  `equal`
is the share of pixels that get the same class as from transformers in fp32.

The stages take turns as well.  Multiply-accumulates are counted by torch.  The peak is the rate of a product of two
4096 x 4096 fp32 matrices that takes turns with the stages; `share of the peak` is what our encoder and decoder, or the
graph that contains them, reach of it.  Memory is the most that two calls take above the loaded model, in a process of
its own: resident memory, or reserved memory on a GPU.  The times from a JPEG file come from benchmarks/jpeg.py.
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
    check_models,
    describe_run,
    in_milliseconds,
    interleaved,
    parse_size,
    peak_memory,
    run_command_line,
    stage_medians,
)
from benchmarks.pipelines import (
    DECODER,
    ENCODER,
    GRAPH,
    PIPELINES,
    Pipeline,
    Setting,
    missing_packages,
    pipelines_on,
)
from segformer.arrays import to_tensor
from segformer.config import default_palette
from segformer.files import read_json, write_json
from segformer.models.build import model_config
from segformer.models.segmenter import Segmenter, for_inference
from segformer.paper.complexity import count_model
from segformer.recipes import RECIPES

BASELINE = "transformers eager fp32"
PACKAGES = ("segformer", "torch", "transformers", "segmentation-models-pytorch", "onnxruntime", "openvino")
PEAK_SIDE = 4096  # of the matrices whose product measures the peak
PEAK = ("peak", "product")
ROW_KEY = ("model", "size", "device", "batch", "classes")  # a new row with the same values replaces the old one


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
    """Measure pipelines from raw pixels to a mask, and print tables.

    Args:
        models: MiT sizes.
        sizes: Image sizes, HxW.
        against: Words; a pipeline is measured if its name contains one of them. all: every pipeline.
        device: Device of all pipelines.
        batch: Number of images in a batch.
        rounds: Number of rounds that are timed.
        classes: Number of classes of the models.
        weights: Folder of trained model folders b0, b2 ...; those that are missing are trained and kept there.
        memory: Whether to measure memory, which runs each pipeline once more in a process of its own.
        extend: Whether to keep the other rows of the file that --out names.
        out: JSON file for the results.
    """
    check_models(models)
    settings = [parse_size(size) for size in sizes]
    names = [name for name in choose_pipelines(device, against) if is_available(name)]
    rows = read_json(out)["rows"] if extend and out is not None and out.is_file() else []
    for model in models:
        trained = widen(trained_model(model, weights), classes)
        with TemporaryDirectory() as folder:
            write_models(trained, Path(folder))
            for size in settings:
                setting = Setting(Path(folder), size, batch, device)
                row = {"model": model, **measure(setting, trained.to(device), names, rounds, memory)}
                rows = replace_row(rows, row)
                print_row(row, Console(width=150))
                if out is not None:  # after each row, in case a later one is interrupted
                    write_json(out, {"machine": describe_run(PACKAGES, device), "rows": rows})


def choose_pipelines(device: Device, against: tuple[str, ...]) -> list[str]:
    """Return the baseline and the pipelines whose names contain one of the words."""
    every = "all" in against
    return [name for name in pipelines_on(device) if every or name == BASELINE or any(word in name for word in against)]


def is_available(name: str) -> bool:
    """Whether the packages of a pipeline are installed; prints what is missing."""
    missing = missing_packages(name)
    if missing:
        print(f"left out: {name} (needs {', '.join(missing)})")
    return not missing


def replace_row(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Append a row, and remove an earlier one of the same model, size, device, batch and number of classes."""
    key = [row[name] for name in ROW_KEY]
    return [known for known in rows if [known[name] for name in ROW_KEY] != key] + [row]


def trained_model(name: str, weights: Path) -> Segmenter:
    """Load the model below ``weights``; if there is none, train one on toytown and keep it there."""
    folder = weights / name
    if not folder.is_dir():
        print(f"training mit_{name} on toytown into {folder}")
        recipe = RECIPES["toytown_b0"]
        train = replace(recipe.train, steps=150, eval_every=150)
        recipe = replace(recipe, name=f"toytown_{name}", model=model_config(f"mit_{name}"), train=train)
        with TemporaryDirectory() as temporary:
            run = Path(temporary) / "run"
            segformer.train(recipe, run)
            segformer.save(segformer.load(run / "best"), folder)
    return segformer.load(folder)


def widen(model: Segmenter, classes: int) -> Segmenter:
    """Return the model with more classes, which never win; its images are not resized.

    The logits of the new classes vary as those of the old ones do.
    """
    card = model.card
    trained = len(card.classes)
    pixels = replace(card.preprocessing, resize="none", multiple=1)
    wide = segformer.build_model(card.model, num_classes=classes, preprocessing=pixels).eval()
    state = model.state_dict()
    weight, bias = (wide.decoder.classifier.state_dict()[name] for name in ("weight", "bias"))
    torch.manual_seed(0)
    weight[trained:] = state["decoder.classifier.weight"][torch.randint(trained, (classes - trained,))]
    weight[trained:] *= 0.5
    bias[trained:] = -20.0
    weight[:trained] = state["decoder.classifier.weight"]
    bias[:trained] = state["decoder.classifier.bias"]
    wide.load_state_dict(state | {"decoder.classifier.weight": weight, "decoder.classifier.bias": bias})
    wide.card = replace(wide.card, palette=default_palette(classes))
    return wide


def write_models(model: Segmenter, folder: Path) -> None:
    """Write the model folder ``ours`` and the same weights as other libraries read them, in ``hf`` and ``smp``."""
    segformer.save(model, folder / "ours")
    for layout in ("hf", "smp"):
        segformer.convert(folder / "ours", folder / layout, layout)


def draw_batch(size: tuple[int, int], batch: int = 1) -> Tensor:
    """Return drawn streets, (B, 3, H, W) uint8."""
    return torch.stack([to_tensor(np.asarray(jpeg.draw_street(size, 100_003 + k))) for k in range(batch)])


def measure(setting: Setting, model: Segmenter, names: list[str], rounds: int, memory: bool) -> dict[str, Any]:
    """Return the figures of all pipelines on one batch."""
    torch.compiler.reset()  # otherwise graphs compiled for other sizes count against the limit of each function
    images = draw_batch(setting.size, setting.batch).to(setting.device)
    seconds, masks, stages, peak = time_pipelines(setting, images, names, rounds)
    if setting.device == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()
    classes = len(model.card.classes)
    complexity = count_model(model.card.model, classes, setting.size)
    macs, macs_literal = setting.batch * complexity.macs, setting.batch * complexity.macs_literal
    return {
        "size": f"{setting.size[0]}x{setting.size[1]}",
        "device": setting.device,
        "batch": setting.batch,
        "classes": classes,
        "rounds": rounds,
        "mixed": mixed_share_of(model, images[:1]),
        "seconds": seconds,
        "times as fast": {name: seconds[BASELINE] / value for name, value in seconds.items()},
        "equal": {name: float((mask == masks[BASELINE]).float().mean()) for name, mask in masks.items()},
        "memory, MiB": {name: memory_in_a_process(name, setting) for name in names} if memory else {},
        "stages, ms": in_milliseconds(stages),
        "from a JPEG file": jpeg.measure(model, setting.size, max(5, rounds // 2), setting.device),
        "GMAC": {"ours": macs / 1e9, "as printed": macs_literal / 1e9},
        "peak GMAC/s": peak / 1e9,
        "share of the peak": shares_of_the_peak(stages, macs, peak),
    }


def time_pipelines(
    setting: Setting, images: Tensor, names: list[str], rounds: int
) -> tuple[dict[str, float], dict[str, Tensor], dict[str, dict[str, float]], float]:
    """Return the median seconds, the masks and the seconds of the stages of each pipeline, and the peak in MAC/s."""
    pipelines = {name: PIPELINES[name](setting) for name in names}
    masks = {name: pipeline.mask(images).cpu() for name, pipeline in pipelines.items()}  # before a graph reuses them
    runs = {name: partial(pipeline.mask, images) for name, pipeline in pipelines.items()}
    for run in runs.values():
        for _ in range(WARM_UP - 1):
            run()
    seconds = {name: median(values) for name, values in interleaved(runs, rounds, setting.device).items()}
    stages, peak = time_stages(pipelines, images, max(5, rounds // 2), setting.device)
    return seconds, masks, stages, peak


@torch.inference_mode()
def time_stages(
    pipelines: dict[str, Pipeline], images: Tensor, rounds: int, device: Device
) -> tuple[dict[str, dict[str, float]], float]:
    """Return the seconds of the stages of every pipeline that has some, and the peak in MAC/s."""
    matrix = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device)
    runs: dict[tuple[str, str], partial[Any]] = {PEAK: partial(torch.matmul, matrix, matrix)}
    for name, pipeline in pipelines.items():
        given: Any = images
        for stage, function in pipeline.stages.items():
            runs[name, stage] = partial(function, given)
            given = function(given)
            given = given.clone() if isinstance(given, Tensor) else given  # a CUDA graph reuses its output memory
    seconds = interleaved(runs, rounds, device)
    peak = PEAK_SIDE**3 / median(seconds.pop(PEAK))
    return stage_medians(seconds), peak


def shares_of_the_peak(stages: dict[str, dict[str, float]], macs: int, peak: float) -> dict[str, float]:
    """Return the share of the peak that the model itself reaches in each of our fp32 pipelines."""
    model_seconds = {
        name: sum(value for stage, value in parts.items() if stage in (ENCODER, DECODER, GRAPH))
        for name, parts in stages.items()
        if name.startswith("ours") and name.endswith("fp32")
    }
    return {name: macs / value / peak for name, value in model_seconds.items()}


@torch.inference_mode()
def mixed_share_of(model: Segmenter, images: Tensor) -> float:
    network = for_inference(model)
    return mixed_share(network(network.normalize(images)))


def mixed_share(logits: Tensor) -> float:
    """Return the share of the cells of 2 x 2 neighboring logits that do not all have the same winner."""
    winners = logits.argmax(dim=1)
    a, b, c, d = winners[:, 1:, 1:], winners[:, :-1, 1:], winners[:, 1:, :-1], winners[:, :-1, :-1]
    return float(((a != b) | (a != c) | (a != d)).float().mean())


def memory_in_a_process(name: str, setting: Setting) -> float:
    """Return the MiB that a pipeline takes while it segments, measured in a process of its own."""
    arguments = [name, str(setting.folder), *map(str, (*setting.size, setting.batch)), setting.device]
    child = [sys.executable, "-m", "benchmarks.inference", "--memory", *arguments]
    found = subprocess.run(child, check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def print_memory(name: str, folder: str, height: str, width: str, batch: str, device: Device) -> None:
    """Do the work of the process that ``memory_in_a_process`` starts."""
    setting = Setting(Path(folder), (int(height), int(width)), int(batch), device)
    run = PIPELINES[name](setting).mask
    images = draw_batch(setting.size, setting.batch).to(device)
    print(peak_memory(partial(run, images), device))


def print_row(row: dict[str, Any], console: Console) -> None:
    title = f"mit_{row['model']}, {row['size']}, batch {row['batch']}, {row['device']}: {row['mixed']:.0%} mixed cells"
    table = Table(title=title, title_justify="left")
    table.add_column("pipeline")
    for heading in ("ms", "times as fast", "equal pixels", "memory, MiB"):
        table.add_column(heading, justify="right")
    for name, seconds in row["seconds"].items():
        memory = f"{row['memory, MiB'][name]:.0f}" if row["memory, MiB"] else "-"
        figures = (f"{1000 * seconds:.1f}", f"{row['times as fast'][name]:.2f}", f"{row['equal'][name]:.2%}", memory)
        table.add_row(name, *figures)
    console.print(table)
    print_stages("stages, ms", row["stages, ms"], console)
    print_stages(f"from a JPEG file of {jpeg.SOURCE[0]} x {jpeg.SOURCE[1]}, ms", row["from a JPEG file"]["ms"], console)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in row["share of the peak"].items())
    print(
        f"{row['GMAC']['ours']:.1f} GMAC (the equation as printed: {row['GMAC']['as printed']:.1f}); "
        f"share of this machine's peak of {row['peak GMAC/s']:.0f} GMAC/s: {shares}"
    )


def print_stages(title: str, stages: dict[str, dict[str, float]], console: Console) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("pipeline")
    headings = list(dict.fromkeys(stage for parts in stages.values() for stage in parts))
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, parts in stages.items():
        table.add_row(name, *(f"{parts[stage]:.2f}" if stage in parts else "-" for stage in headings))
    console.print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print_memory(*sys.argv[2:])  # type: ignore[arg-type]
    else:
        run_command_line(main)
