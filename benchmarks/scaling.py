"""Cost against the size of an image and of a batch, and frames per second as the paper counts them.

    python -m benchmarks.scaling [--model b0] [--sizes 256 512 ...] [--batches 1 2 4 8] [--rounds 5]
                                 [--frames 50] [--weights DIR] [--out DIR]

Our model and transformers', both eager in fp32, take turns within every round; times are medians.  Frames per second
are measured with batch 1 at 512 x 512 and 1024 x 2048: five frames to warm up, then --frames (in the paper 200) one
after the other, without loading data, with the upsampling to the original size.  --out is a folder for scaling.json
and scaling.html, a page with the curves.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.inference import PACKAGES, draw_batch, trained_model, widen, write_models
from benchmarks.machine import check_models, describe_run, interleaved, run_command_line, timed
from benchmarks.pipelines import FP32, Setting, ours_eager, transformers_eager
from segformer import report
from segformer.files import write_json

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
    """Measure what an image costs, and print the times.

    Args:
        model: MiT size.
        sizes: Sides of square images, in pixels.
        batches: Batch sizes at 512 x 512.
        rounds: Number of rounds that are timed.
        frames: Number of frames that are timed for the frames per second.
        classes: Number of classes of the model.
        weights: Folder of trained model folders b0, b2 ...; those that are missing are trained and kept there.
        out: Folder for scaling.json and scaling.html.
    """
    check_models([model])
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(widen(trained_model(model, weights), classes), folder)
        by_size = {side: compare(folder, (side, side), 1, rounds) for side in sizes}
        by_batch = {batch: compare(folder, (512, 512), batch, rounds) for batch in batches}
        rates = {f"{h}x{w}": frames_per_second(folder, (h, w), frames) for h, w in ((512, 512), (1024, 2048))}
    result = {
        "machine": describe_run(PACKAGES), "model": model, "rounds": rounds, "classes": classes, "frames": frames,
        "seconds by side": by_size, "seconds by batch": by_batch, "frames a second": rates,
    }  # fmt: skip
    for heading in ("seconds by side", "seconds by batch", "frames a second"):
        print(heading)
        for key, values in result[heading].items():
            print(f"  {key}: " + "  ".join(f"{name} {value:.3f}" for name, value in values.items()))
    if out is not None:
        write_json(out / "scaling.json", result)
        report.write_page(out / "scaling.html", build_page(result))


def compare(folder: Path, size: tuple[int, int], batch: int, rounds: int) -> dict[str, float]:
    """Return the median seconds that each model takes for a batch."""
    images = draw_batch(size).expand(batch, -1, -1, -1).contiguous()
    runs = {name: partial(run, images) for name, run in build_models(folder, size).items()}
    for run in runs.values():
        run()
    return {name: median(values) for name, values in interleaved(runs, rounds).items()}


def frames_per_second(folder: Path, size: tuple[int, int], frames: int) -> dict[str, float]:
    """Return the frames per second of each model by the paper's protocol."""
    image, rates = draw_batch(size), {}
    for name, run in build_models(folder, size).items():
        for _ in range(WARM_UP):
            run(image)
        rates[name] = frames / timed(lambda run=run: [run(image) for _ in range(frames)])
    return rates


def build_models(folder: Path, size: tuple[int, int]) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    setting = Setting(folder, size)
    return {OURS: ours_eager(setting, FP32).mask, THEIRS: transformers_eager(setting, FP32).mask}


def build_page(result: dict[str, Any]) -> str:
    """Return a page with the curves."""
    by_size, by_batch = result["seconds by side"], result["seconds by batch"]
    curves = {name: [(float(side), values[name]) for side, values in by_size.items()] for name in (OURS, THEIRS)}
    per_image = {
        name: [(float(batch), values[name] / batch) for batch, values in by_batch.items()] for name in (OURS, THEIRS)
    }
    ratios = {"ratio": [(float(side), values[THEIRS] / values[OURS]) for side, values in by_size.items()]}
    machine = result["machine"]
    return report.page(
        f"MiT-{result['model'].upper()}: cost of an image",
        f"{machine['cpu']}, {machine['threads']} threads, {machine['date']}; eager, fp32",
        report.section(
            "Cost against the side of a square image",
            report.columns(
                report.line_chart(curves, x_label="side in pixels", y_label="seconds"),
                report.line_chart(ratios, x_label="side in pixels", y_label="times as fast"),
            ),
        ),
        report.section(
            "Cost against the batch size, 512 x 512",
            report.line_chart(per_image, x_label="images in a batch", y_label="seconds per image"),
        ),
    )


if __name__ == "__main__":
    run_command_line(main)
