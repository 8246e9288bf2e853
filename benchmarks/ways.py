"""Ways from raw pixels to a mask that ``benchmarks.inference`` compares.

A way is built from a folder of models (ours, hf, smp: the same weights in three layouts) for images of one size, and
takes uint8 (1, 3, H, W) to class indices (1, H, W).
"""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segformer
from segformer.ops.upsample_argmax import upsample_argmax

Size = tuple[int, int]
Way = Callable[[Tensor], Tensor]
FP32, BF16 = torch.float32, torch.bfloat16


class Documented(nn.Module):
    """What the documentation of transformers and of segmentation-models-pytorch shows."""

    def __init__(self, model: nn.Module, size: Size, card: Any, dtype: torch.dtype = FP32) -> None:
        super().__init__()
        self.model, self.size, self.dtype = model.to(dtype), size, dtype
        self.register_buffer("mean", torch.tensor(card.preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(card.preprocessing.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        found = self.model(((image.float() - self.mean) / self.std).to(self.dtype))
        logits = found if isinstance(found, Tensor) else found.logits
        if logits.shape[2:] != self.size:
            logits = F.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return logits.argmax(dim=1)


class OurLogits(nn.Module):
    """The part of ours that an exported graph holds: raw pixels to logits at a quarter of the size."""

    def __init__(self, model: segformer.Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.model.normalize(image)).float()


def theirs(folder: Path, size: Size, dtype: torch.dtype = FP32) -> Documented:
    from transformers import SegformerForSemanticSegmentation

    model: Any = SegformerForSemanticSegmentation.from_pretrained(folder / "hf").eval()
    return Documented(model, size, segformer.load(folder / "ours").card, dtype)


def smps(folder: Path, size: Size) -> Documented:
    import segmentation_models_pytorch as smp

    return Documented(smp.from_pretrained(folder / "smp").eval(), size, segformer.load(folder / "ours").card)


def ours(folder: Path, dtype: torch.dtype = FP32) -> segformer.Segmenter:
    return segformer.load(folder / "ours").fuse(None if dtype == FP32 else dtype)


def eager(module: nn.Module) -> Way:
    return torch.inference_mode()(module)


def compiled(module: nn.Module) -> Way:
    return torch.inference_mode()(torch.compile(module))


def our_eager(folder: Path, size: Size, dtype: torch.dtype) -> Way:
    return ours(folder, dtype).predict_mask


def our_compiled(folder: Path, size: Size, dtype: torch.dtype) -> Way:
    graph = compiled(OurLogits(ours(folder, dtype)))
    return lambda image: upsample_argmax(graph(image), size)


def exported(module: nn.Module, size: Size, path: Path) -> Path:
    """Write a graph with a fixed size as ONNX."""
    if not path.is_file():
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            image = torch.zeros(1, 3, *size, dtype=torch.uint8)
            torch.onnx.export(module, (image,), path, dynamo=True, verbose=False, external_data=False)
    return path


def onnxruntime_of(module: nn.Module, size: Size, path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(exported(module, size, path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])


def openvino_of(module: nn.Module, size: Size, path: Path, precision: str) -> Callable[[Tensor], Tensor]:
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
    }
    graph = core.compile_model(core.read_model(exported(module, size, path)), "CPU", options)
    request = graph.create_infer_request()
    return lambda image: torch.from_numpy(
        np.asarray(request.infer([image.numpy()], share_outputs=True)[graph.output(0)])
    )


def file_of(folder: Path, owner: str, size: Size) -> Path:
    return folder / f"{owner}_{size[0]}x{size[1]}.onnx"


def their_onnxruntime(folder: Path, size: Size) -> Way:
    return onnxruntime_of(theirs(folder, size), size, file_of(folder, "theirs", size))


def their_openvino(folder: Path, size: Size, precision: str) -> Way:
    return openvino_of(theirs(folder, size), size, file_of(folder, "theirs", size), precision)


def our_onnxruntime(folder: Path, size: Size) -> Way:
    graph = onnxruntime_of(OurLogits(ours(folder)), size, file_of(folder, "ours", size))
    return lambda image: upsample_argmax(graph(image), size)


def our_openvino(folder: Path, size: Size, precision: str) -> Way:
    graph = openvino_of(OurLogits(ours(folder)), size, file_of(folder, "ours", size), precision)
    return lambda image: upsample_argmax(graph(image), size)


WAYS: dict[str, Callable[[Path, Size], Way]] = {
    "transformers eager fp32": lambda folder, size: eager(theirs(folder, size)),
    "transformers eager bf16": lambda folder, size: eager(theirs(folder, size, BF16)),
    "transformers compile fp32": lambda folder, size: compiled(theirs(folder, size)),
    "transformers compile bf16": lambda folder, size: compiled(theirs(folder, size, BF16)),
    "transformers onnxruntime fp32": their_onnxruntime,
    "transformers openvino fp32": partial(their_openvino, precision="f32"),
    "transformers openvino bf16": partial(their_openvino, precision="bf16"),
    "smp eager fp32": lambda folder, size: eager(smps(folder, size)),
    "ours eager fp32": partial(our_eager, dtype=FP32),
    "ours eager bf16": partial(our_eager, dtype=BF16),
    "ours compile fp32": partial(our_compiled, dtype=FP32),
    "ours compile bf16": partial(our_compiled, dtype=BF16),
    "ours onnxruntime fp32": our_onnxruntime,
    "ours openvino fp32": partial(our_openvino, precision="f32"),
    "ours openvino bf16": partial(our_openvino, precision="bf16"),
}
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
