"""From a JPEG file to the model's input: this package against transformers' image processors, fed by Pillow.

All squash a drawn street of 1080 x 1920 to the model's size and normalise it.  Both processors average where they
shrink; ours does so where asked ("antialiased": the same function as theirs), the released models do not.  A stage of
a processor is a call of its own, and checks its arguments anew: "all" is one call for everything.  On a GPU the pixels
go there where each can take them: ours to be normalised, torchvision's to be resized, Pillow's at the end.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.machine import Device, by_way, in_ms, interleaved
from benchmarks.ways import Size, Stages
from segformer.config import Preprocessing
from segformer.data.images import read_image
from segformer.data.sources.street_scene import draw_scene
from segformer.data.transforms import preprocess
from segformer.models.segmenter import Segmenter

SOURCE = (1080, 1920)
PROCESSORS = {"torchvision": "SegformerImageProcessor", "Pillow": "SegformerImageProcessorPil"}
FORMERLY = {"torchvision": "SegformerImageProcessorFast", "Pillow": "SegformerImageProcessor"}  # before transformers 5
REFERENCE = "transformers torchvision"
DECODING, RESIZE, NORMALIZATION, ALL = "decoding", "resize", "normalisation", "all"


def measure(model: Segmenter, size: Size, rounds: int, device: Device) -> dict[str, Any]:
    """Milliseconds of the stages of each, and how far each ends from transformers."""
    ways = {"ours": our_stages(model, size, device), "ours, antialiased": our_stages(model, size, device, True)}
    for kind, processor in their_processors().items():
        ways[f"transformers {kind}"] = their_stages(kind, processor, model.card.preprocessing, size, device)
    with TemporaryDirectory() as place:
        path = Path(place) / "street.jpg"
        street(SOURCE).save(path, quality=90)
        runs: dict[tuple[str, str], Callable[[], Any]] = {}
        inputs = {}
        for way, (stages, whole) in ways.items():
            given: Any = path
            for stage, function in stages.items():
                runs[way, stage] = lambda function=function, given=given: function(given)
                given = function(given)
            runs[way, ALL] = lambda whole=whole: whole(path)
            inputs[way] = whole(path).float().cpu()
        seconds = interleaved(runs, rounds, device)
    return {"ms": in_ms(by_way(seconds)), "grey levels apart": apart(inputs, REFERENCE, model.card.preprocessing.std)}


def street(size: Size, number: int = 100_003) -> Image.Image:
    return Image.fromarray(draw_scene(number)[0]).resize(size[::-1], Image.Resampling.BICUBIC)


def our_stages(
    model: Segmenter, size: Size, device: Device, antialias: bool = False
) -> tuple[Stages, Callable[[Path], Tensor]]:
    """What Predictor does with a file."""
    squash = replace(
        model.card.preprocessing,
        resize="squash",
        short_side=size[0],
        long_side=size[1],
        multiple=1,
        antialias=antialias,
    )
    stages = {
        DECODING: read_image,
        RESIZE: lambda pixels: preprocess(torch.from_numpy(np.array(pixels.transpose(2, 0, 1))), squash),
        NORMALIZATION: lambda image: model.normalize(image[None].to(device)),
    }
    return stages, lambda path: chained(stages, path)


def chained(stages: Stages, given: Any) -> Any:
    """What the last stage gives."""
    for stage in stages.values():
        given = stage(given)
    return given


def their_processors() -> dict[str, Any]:
    """Those that this version of transformers has."""
    import transformers

    names = PROCESSORS if hasattr(transformers, PROCESSORS["Pillow"]) else FORMERLY
    return {kind: getattr(transformers, name) for kind, name in names.items() if hasattr(transformers, name)}


def their_stages(
    kind: str, processor_class: Any, pixels: Preprocessing, size: Size, device: Device
) -> tuple[Stages, Callable[[Path], Tensor]]:
    """What transformers' documentation shows, and the same stage by stage."""
    statistics = {"image_mean": [m / 255 for m in pixels.mean], "image_std": [s / 255 for s in pixels.std]}
    processor = processor_class(size={"height": size[0], "width": size[1]}, **statistics)
    place = {"device": device} if kind == "torchvision" else {}

    def process(image: Any, **options: Any) -> Tensor:
        found: Tensor = processor(image, return_tensors="pt", **place, **options)["pixel_values"]
        return found

    stages = {
        DECODING: decoded,
        RESIZE: lambda image: process(image, do_rescale=False, do_normalize=False)[0],
        NORMALIZATION: lambda image: process(image, do_resize=False).to(device),
    }
    return stages, lambda path: process(decoded(path)).to(device)


def decoded(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def apart(inputs: dict[str, Tensor], reference: str, std: tuple[float, ...]) -> dict[str, float]:
    """Mean difference of normalised pixels (1, 3, H, W), in grey levels of 0-255."""
    scale = torch.tensor(std).view(-1, 1, 1)
    return {way: float(((pixels - inputs[reference]).abs() * scale).mean()) for way, pixels in inputs.items()}
