"""Ways from raw pixels to a mask that ``benchmarks.inference`` compares."""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segformer
from benchmarks.machine import Device
from segformer.ops.upsample_argmax import upsample_argmax

Size = tuple[int, int]
Stages = Mapping[str, Callable[[Any], Any]]
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
PREPROCESSING, ENCODER, DECODER, GRAPH, LAST = "preprocessing", "encoder", "decoder", "graph", "upsampling + arg-max"


@dataclass(frozen=True)
class Task:
    """What a way is built for."""

    folder: Path
    """Of models: ours, hf, smp, the same weights in three layouts."""
    size: Size
    batch: int = 1
    device: Device = "cpu"


@dataclass(frozen=True)
class Way:
    """From pixels (B, 3, H, W) uint8 to class indices (B, H, W)."""

    mask: Callable[[Tensor], Tensor]
    stages: Stages = field(default_factory=dict)
    """The same in parts, where they can be told apart; each takes what the one before it gives."""


class Documented(nn.Module):
    """What the documentation of transformers and of segmentation-models-pytorch shows."""

    def __init__(self, model: nn.Module, size: Size, card: Any, dtype: torch.dtype = FP32) -> None:
        super().__init__()
        self.model, self.size, self.dtype = model.to(dtype), size, dtype
        self.register_buffer("mean", torch.tensor(card.preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(card.preprocessing.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        found = self.model(self.normalize(images))
        return self.classes(found if isinstance(found, Tensor) else found.logits)

    def normalize(self, images: Tensor) -> Tensor:
        return ((images.float() - self.mean) / self.std).to(self.dtype)

    def classes(self, logits: Tensor) -> Tensor:
        if logits.shape[2:] != self.size:
            logits = F.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return logits.argmax(dim=1)


class OurLogits(nn.Module):
    """The part of ours that an exported graph holds: raw pixels to logits (B, h, w, K) at a quarter of the size.

    A pixel's logits lie together, as the arg-max reads them: the runtimes need not turn them around.
    """

    def __init__(self, model: segformer.Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.model.normalize(image)).permute(0, 2, 3, 1).float()


def theirs(task: Task, dtype: torch.dtype = FP32) -> Documented:
    from transformers import SegformerForSemanticSegmentation

    model: Any = SegformerForSemanticSegmentation.from_pretrained(task.folder / "hf").eval()
    return Documented(model, task.size, segformer.load(task.folder / "ours").card, dtype).to(task.device)


def smps(task: Task) -> Documented:
    import segmentation_models_pytorch as smp

    model = smp.from_pretrained(task.folder / "smp").eval()
    return Documented(model, task.size, segformer.load(task.folder / "ours").card).to(task.device)


def ours(task: Task, dtype: torch.dtype = FP32, *, compile: bool = False) -> segformer.Segmenter:
    model = segformer.load(task.folder / "ours").to(task.device)
    return model.fuse(None if dtype == FP32 else dtype, compile=compile)


def eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.inference_mode()(function)


def compiled(module: nn.Module, device: Device) -> Callable[[Tensor], Tensor]:
    mode = "max-autotune" if device == "cuda" else None
    return eager(torch.compile(module, dynamic=False, mode=mode))


def their_eager(task: Task, dtype: torch.dtype) -> Way:
    documented = theirs(task, dtype)
    model: Any = documented.model
    stages = {
        PREPROCESSING: documented.normalize,
        ENCODER: lambda pixels: model.segformer(pixels, output_hidden_states=True).hidden_states,
        DECODER: model.decode_head,
        LAST: documented.classes,
    }
    return Way(eager(documented), {name: eager(stage) for name, stage in stages.items()})


def our_eager(task: Task, dtype: torch.dtype) -> Way:
    model = ours(task, dtype)
    stages = {
        PREPROCESSING: lambda images: model.normalize(images).to(dtype),
        ENCODER: model.encoder,
        DECODER: lambda maps: model.head(model.decoder(maps)),
        LAST: partial(upsample_argmax, size=task.size),
    }
    return Way(model.predict_mask, {name: eager(stage) for name, stage in stages.items()})


def our_compiled(task: Task, dtype: torch.dtype) -> Way:
    model = ours(task, dtype, compile=True)
    stages = {PREPROCESSING: model.normalize, GRAPH: model, LAST: partial(upsample_argmax, size=task.size)}
    return Way(model.predict_mask, {name: eager(stage) for name, stage in stages.items()})


def exported(module: nn.Module, task: Task, owner: str) -> Path:
    """Write a graph of fixed shapes as ONNX."""
    path = task.folder / f"{owner}_{task.batch}x{task.size[0]}x{task.size[1]}.onnx"
    if not path.is_file():
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            images = torch.zeros(task.batch, 3, *task.size, dtype=torch.uint8)
            torch.onnx.export(module, (images,), path, dynamo=True, verbose=False, external_data=False)
    return path


def onnxruntime_of(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def openvino_of(path: Path, precision: str) -> Callable[[Tensor], Tensor]:
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
    }
    graph = core.compile_model(core.read_model(path), "CPU", options)
    request = graph.create_infer_request()
    return lambda images: torch.from_numpy(
        np.asarray(request.infer([images.numpy()], share_outputs=True)[graph.output(0)])
    )


def their_onnxruntime(task: Task) -> Way:
    return Way(onnxruntime_of(exported(theirs(task), task, "theirs")))


def their_openvino(task: Task, precision: str) -> Way:
    return Way(openvino_of(exported(theirs(task), task, "theirs"), precision))


def our_onnxruntime(task: Task) -> Way:
    return with_argmax(onnxruntime_of(exported(OurLogits(ours(task)), task, "ours")), task.size)


def our_openvino(task: Task, precision: str) -> Way:
    return with_argmax(openvino_of(exported(OurLogits(ours(task)), task, "ours"), precision), task.size)


def with_argmax(graph: Callable[[Tensor], Tensor], size: Size) -> Way:
    def logits(images: Tensor) -> Tensor:
        return graph(images).permute(0, 3, 1, 2)

    def last(scores: Tensor) -> Tensor:
        return upsample_argmax(scores, size)

    return Way(lambda images: last(logits(images)), {GRAPH: logits, LAST: last})


WAYS: dict[str, Callable[[Task], Way]] = {
    "transformers eager fp32": partial(their_eager, dtype=FP32),
    "transformers eager bf16": partial(their_eager, dtype=BF16),
    "transformers eager fp16": partial(their_eager, dtype=FP16),
    "transformers compile fp32": lambda task: Way(compiled(theirs(task), task.device)),
    "transformers compile bf16": lambda task: Way(compiled(theirs(task, BF16), task.device)),
    "transformers compile fp16": lambda task: Way(compiled(theirs(task, FP16), task.device)),
    "transformers onnxruntime fp32": their_onnxruntime,
    "transformers openvino fp32": partial(their_openvino, precision="f32"),
    "transformers openvino bf16": partial(their_openvino, precision="bf16"),
    "smp eager fp32": lambda task: Way(eager(smps(task))),
    "ours eager fp32": partial(our_eager, dtype=FP32),
    "ours eager bf16": partial(our_eager, dtype=BF16),
    "ours eager fp16": partial(our_eager, dtype=FP16),
    "ours compile fp32": partial(our_compiled, dtype=FP32),
    "ours compile bf16": partial(our_compiled, dtype=BF16),
    "ours compile fp16": partial(our_compiled, dtype=FP16),
    "ours onnxruntime fp32": our_onnxruntime,
    "ours openvino fp32": partial(our_openvino, precision="f32"),
    "ours openvino bf16": partial(our_openvino, precision="bf16"),
}
ELSEWHERE = {"cpu": {"fp16"}, "cuda": {"onnxruntime", "openvino"}}  # what is measured on the other device only
NEEDS = {
    "transformers": "transformers",
    "smp": "segmentation_models_pytorch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


def available(way: str) -> str:
    """Say which package a way lacks; nothing where it lacks none."""
    needed = [package for word, package in NEEDS.items() if word in way.split()]
    needed += ["onnxscript"] if {"onnxruntime", "openvino"} & set(way.split()) else []
    return ", ".join(f"needs {package}" for package in needed if find_spec(package) is None)


def ways_on(device: Device) -> list[str]:
    return [way for way in WAYS if not ELSEWHERE[device] & set(way.split())]
