"""Cost against the size of an image and of a batch, and frames a second as the paper counts them.

    python -m benchmarks.scaling [--model b0] [--sizes 256 512 ...] [--batches 1 2 4 8] [--rounds 5]
                                 [--frames 50] [--weights DIR] [--out DIR]

Ours and transformers', eager, fp32, take turns within every round; medians.  Frames a second: batch 1, 512 x 512 and
1024 x 2048, five to warm up, then --frames (the paper: 200) one after the other, without loading data, with the
upsampling to the original size.  --out gets scaling.json and scaling.html, a page with the curves.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro

from benchmarks.inference import PACKAGES, pictures, trained_model, widened, write_models
from benchmarks.machine import describe_run, interleaved, timed
from benchmarks.ways import FP32, Task, our_eager, their_eager
from segformer.files import write_json
from segformer.report import html as report

OURS, THEIRS = "ours", "transformers"
WARM_UP = 5


def main(
    model: str = "b0",
    sizes: tuple[int, ...] = (256, 512, 768, 1024, 1536, 2048),
    batches: tuple[int, ...] = (1, 2, 4, 8),
    rounds: int = 5,
    frames: int = 50,
    classes: int = 150,
    weights: Path = Path("runs/benchmark"),
    out: Path | None = None,
) -> None:
    """Measure, print, and write where ``out`` says."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        write_models(widened(trained_model(model, weights), classes), folder)
        by_size = {side: compare(folder, (side, side), 1, rounds) for side in sizes}
        by_batch = {batch: compare(folder, (512, 512), batch, rounds) for batch in batches}
        rates = {f"{h}x{w}": frames_of(folder, (h, w), frames) for h, w in ((512, 512), (1024, 2048))}
    result = {
        "machine": describe_run(PACKAGES), "model": model, "rounds": rounds, "classes": classes, "frames": frames,
        "seconds by side": by_size, "seconds by batch": by_batch, "frames a second": rates,
    }  # fmt: skip
    for heading in ("seconds by side", "seconds by batch", "frames a second"):
        print(heading)
        for key, values in result[heading].items():
            print(f"  {key}: " + "  ".join(f"{way} {value:.3f}" for way, value in values.items()))
    if out is not None:
        write_json(out / "scaling.json", result)
        report.write_page(out / "scaling.html", page(result))


def compare(folder: Path, size: tuple[int, int], batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a batch, of both."""
    images = pictures(size).expand(batch, -1, -1, -1).contiguous()
    runs = {way: partial(run, images) for way, run in ways(folder, size).items()}
    for run in runs.values():
        run()
    return {way: median(values) for way, values in interleaved(runs, rounds).items()}


def frames_of(folder: Path, size: tuple[int, int], frames: int) -> dict[str, float]:
    """Frames a second by the paper's protocol."""
    image, rates = pictures(size), {}
    for way, run in ways(folder, size).items():
        for _ in range(WARM_UP):
            run(image)
        rates[way] = frames / timed(lambda run=run: [run(image) for _ in range(frames)])
    return rates


def ways(folder: Path, size: tuple[int, int]) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    task = Task(folder, size)
    return {OURS: our_eager(task, FP32).mask, THEIRS: their_eager(task, FP32).mask}


def page(result: dict[str, Any]) -> str:
    """The curves on a page."""
    by_size, by_batch = result["seconds by side"], result["seconds by batch"]
    curves = {way: [(float(side), values[way]) for side, values in by_size.items()] for way in (OURS, THEIRS)}
    per_image = {
        way: [(float(batch), values[way] / batch) for batch, values in by_batch.items()] for way in (OURS, THEIRS)
    }
    ratios = {"ratio": [(float(side), values[THEIRS] / values[OURS]) for side, values in by_size.items()]}
    machine_of = result["machine"]
    return report.page(
        f"MiT-{result['model'].upper()}: what an image costs",
        f"{machine_of['cpu']}, {machine_of['threads']} threads, {machine_of['date']}; eager, fp32",
        report.section(
            "Against the side of a square image",
            report.columns(
                report.line_chart(curves, x_label="side in pixels", y_label="seconds"),
                report.line_chart(ratios, x_label="side in pixels", y_label="times as fast"),
            ),
        ),
        report.section(
            "Against the batch, 512 x 512",
            report.line_chart(per_image, x_label="images in a batch", y_label="seconds an image"),
        ),
    )


if __name__ == "__main__":
    tyro.cli(main)
