"""What counting adds to the inference of an evaluation: python -m benchmarks.evaluation

One image of ADE20K's size with 150 classes, all steps in one run, interleaved: the mask alone, the counts of pixels
(all that a confusion matrix needs), the mask with the scores of some pixels, and all counts of ``segformer evaluate``.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import check_models, interleaved, run_command_line
from segformer.config import Preprocessing
from segformer.data.loading import generator_of
from segformer.evaluation.tally import Tally, count_pixels, sampled_pixels
from segformer.files import write_json
from segformer.inference.predictor import Predictor
from segformer.models.build import build_model

NUM_IMAGES = 2000  # of ADE20K's val split: they share the pixels that are drawn for the calibration
NUM_CLASSES = 150
SIZE = (512, 683)
WARM_UP = 3


def main(model: str = "b0", rounds: int = 30, threads: int = 0, out: Path | None = None) -> None:
    """Measure what counting costs, and print the median times and their ratios.

    Args:
        model: MiT size.
        rounds: Number of rounds that are timed.
        threads: Number of CPU threads; 0: torch's choice.
        out: JSON file for the results.
    """
    check_models([model])
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    seconds = measure(
        Predictor(build_model(f"mit_{model}", num_classes=NUM_CLASSES, preprocessing=Preprocessing()).eval()), rounds
    )
    medians = {name: median(values[WARM_UP:]) for name, values in seconds.items()}
    extra = medians["all_counts"] + medians["mask_with_scores"] - medians["mask"]
    result = {
        "model": f"mit_{model}",
        "image": f"{SIZE[0]} x {SIZE[1]}, {NUM_CLASSES} classes",
        "threads": torch.get_num_threads(),
        "milliseconds": {name: round(1000 * value, 2) for name, value in medians.items()},
        "pixel_counts_over_mask": round(medians["pixel_counts"] / medians["mask"], 4),
        "all_counts_over_mask": round(extra / medians["mask"], 4),
    }
    print(json.dumps(result, indent=2))
    if out:
        write_json(out, result)


def measure(predictor: Predictor, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every call of each step."""
    coarse = torch.rand(1, 3, 12, 16) * 255
    image = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 255)[0].to(torch.uint8)
    tally = Tally.empty(NUM_IMAGES, NUM_CLASSES)
    prediction = predictor.mask(image)
    label = prediction.roll(9, 0).to(torch.uint8)

    def sample() -> torch.Tensor:
        return sampled_pixels(label, NUM_IMAGES, generator_of(0, 0))

    scores = predictor.mask_with_scores(image, sample())[1]

    def count_all() -> None:
        tally.add(0, prediction, label, sampled=(scores, label.flatten()[sample()].long()))

    runs: dict[str, Any] = {
        "mask": lambda: predictor.mask(image),
        "pixel_counts": lambda: count_pixels(prediction, label, NUM_CLASSES),
        "mask_with_scores": lambda: predictor.mask_with_scores(image, sample()),
        "all_counts": count_all,
    }
    return interleaved(runs, rounds + WARM_UP)


if __name__ == "__main__":
    run_command_line(main)
