"""What counting adds to the inference of an evaluation: python -m benchmarks.evaluation

One run, interleaved: segmenting an image of ADE20K's size into 150 classes, counting pixels (training's validation),
and counting borders and calibration as well (``segformer evaluate``).  Medians, and their ratio.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine import timed
from segformer.config import EvalConfig, Preprocessing
from segformer.data.loading import generator_of
from segformer.evaluation.tally import Tally, count_pixels, sampled_pixels
from segformer.inference.windows import predict_mask, predict_with_scores
from segformer.models.build import build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mit_b0")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = build_model(arguments.model, num_classes=150, preprocessing=Preprocessing()).eval().fuse()
    coarse = torch.rand(1, 3, 12, 16) * 255
    image = torch.nn.functional.interpolate(coarse, (512, 683), mode="bicubic").clamp(0, 255)[0].to(torch.uint8)
    label = predict_mask(model, image, EvalConfig()).roll(9, 0).to(torch.uint8)
    tally, config = Tally.empty(2000, 150), EvalConfig()

    def round_of(k: int) -> tuple[float, ...]:
        prediction = predict_mask(model, image, config)
        points = sampled_pixels(label, 2000, generator_of(0, k))

        def closer() -> None:
            some = sampled_pixels(label, 2000, generator_of(0, k))
            tally.add_scores(k, scores, label.flatten()[some].long())
            tally.add(k, prediction, label)

        scores = predict_with_scores(model, image, config, points)[1]
        return (
            timed(lambda: predict_mask(model, image, config)),
            timed(lambda: count_pixels(prediction, label, 150)),
            timed(closer),
            timed(lambda: predict_with_scores(model, image, config, points)),
        )

    times: dict[str, list[float]] = {"inference": [], "counting pixels": [], "counting all": [], "with scores": []}
    for k in range(arguments.rounds + 3):
        found = round_of(k)
        if k >= 3:
            for values, seconds in zip(times.values(), found, strict=True):
                values.append(seconds)
    medians = {name: median(values) for name, values in times.items()}
    extra = medians["counting all"] + medians["with scores"] - medians["inference"]
    result = {
        "model": arguments.model,
        "image": "512 x 683, 150 classes",
        "threads": torch.get_num_threads(),
        "milliseconds": {name: round(1000 * value, 2) for name, value in medians.items()},
        "counting pixels over inference": round(medians["counting pixels"] / medians["inference"], 4),
        "counting all over inference": round(extra / medians["inference"], 4),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
