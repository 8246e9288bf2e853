"""JPEG file to the model's input: this package against transformers' image processors, which Pillow feeds.

All of them squash a drawn street of 1080 x 1920 to the model's size and normalize it.  Both processors average pixels
when they shrink an image.  Ours does so only if asked ("antialiased": the same function as theirs), as the released
models expect.  A stage of a processor is a separate call, which checks its arguments again; "all" is one call for
everything.  On a GPU the pixels are moved as early as each library can take them there: ours before normalization,
torchvision's before resizing, Pillow's at the end.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.machine import Device, in_milliseconds, interleaved, stage_medians
from benchmarks.pipelines import Size, Stages
from segformer.arrays import to_tensor
from segformer.config import Preprocessing
from segformer.data.images import read_image
from segformer.data.sources.street_scene import draw_scene
from segformer.data.transforms import preprocess
from segformer.models.segmenter import Segmenter

SOURCE = (1080, 1920)
PROCESSORS = {"torchvision": "SegformerImageProcessor", "Pillow": "SegformerImageProcessorPil"}
OLD_PROCESSORS = {"torchvision": "SegformerImageProcessorFast", "Pillow": "SegformerImageProcessor"}
"""Their names before transformers 5."""
REFERENCE = "transformers torchvision"
DECODING, RESIZE, NORMALIZATION, ALL = "decoding", "resize", "normalization", "all"


def measure(model: Segmenter, size: Size, rounds: int, device: Device) -> dict[str, Any]:
    """Return the milliseconds of each stage, and how far each result is from that of transformers."""
    pipelines = {"ours": our_stages(model, size, device), "ours, antialiased": our_stages(model, size, device, True)}
    for kind, processor in find_processors().items():
        pipelines[f"transformers {kind}"] = their_stages(kind, processor, model.card.preprocessing, size, device)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "street.jpg"
        draw_street(SOURCE).save(path, quality=90)
        runs: dict[tuple[str, str], Callable[[], Any]] = {}
        inputs = {}
        for name, (stages, whole) in pipelines.items():
            given: Any = path
            for stage, function in stages.items():
                runs[name, stage] = lambda function=function, given=given: function(given)
                given = function(given)
            runs[name, ALL] = lambda whole=whole: whole(path)
            inputs[name] = whole(path).float().cpu()
        seconds = interleaved(runs, rounds, device)
    differences = gray_levels_apart(inputs, REFERENCE, model.card.preprocessing.std)
    return {"ms": in_milliseconds(stage_medians(seconds)), "grey levels apart": differences}


def draw_street(size: Size, number: int = 100_003) -> Image.Image:
    return Image.fromarray(draw_scene(number)[0]).resize(size[::-1], Image.Resampling.BICUBIC)


def our_stages(
    model: Segmenter, size: Size, device: Device, antialias: bool = False
) -> tuple[Stages, Callable[[Path], Tensor]]:
    """Return the stages of what Predictor does with a file, and one function that does all of it."""
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
        RESIZE: lambda pixels: preprocess(to_tensor(pixels), squash),
        NORMALIZATION: lambda image: model.normalize(image[None].to(device)),
    }
    return stages, lambda path: run_stages(stages, path)


def run_stages(stages: Stages, given: Any) -> Any:
    """Return the result of the last stage."""
    for stage in stages.values():
        given = stage(given)
    return given


def find_processors() -> dict[str, Any]:
    """Return the processors that this version of transformers has."""
    import transformers

    names = PROCESSORS if hasattr(transformers, PROCESSORS["Pillow"]) else OLD_PROCESSORS
    return {kind: getattr(transformers, name) for kind, name in names.items() if hasattr(transformers, name)}


def their_stages(
    kind: str, processor_class: Any, pixels: Preprocessing, size: Size, device: Device
) -> tuple[Stages, Callable[[Path], Tensor]]:
    """Return what transformers' documentation shows, stage by stage, and one function that does all of it."""
    statistics = {"image_mean": [m / 255 for m in pixels.mean], "image_std": [s / 255 for s in pixels.std]}
    processor = processor_class(size={"height": size[0], "width": size[1]}, **statistics)
    where = {"device": device} if kind == "torchvision" else {}

    def process(image: Any, **options: Any) -> Tensor:
        found: Tensor = processor(image, return_tensors="pt", **where, **options)["pixel_values"]
        return found

    stages = {
        DECODING: decode,
        RESIZE: lambda image: process(image, do_rescale=False, do_normalize=False)[0],
        NORMALIZATION: lambda image: process(image, do_resize=False).to(device),
    }
    return stages, lambda path: process(decode(path)).to(device)


def decode(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def gray_levels_apart(inputs: dict[str, Tensor], reference: str, std: tuple[float, ...]) -> dict[str, float]:
    """Return the mean difference of normalized pixels (1, 3, H, W) from the reference, in gray levels of 0-255."""
    scale = torch.tensor(std).view(-1, 1, 1)
    return {name: float(((pixels - inputs[reference]).abs() * scale).mean()) for name, pixels in inputs.items()}
