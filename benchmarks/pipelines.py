"""The pipelines from raw pixels to a mask that ``benchmarks.inference`` compares."""

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
from segformer.models.segmenter import for_inference
from segformer.ops.upsample_argmax import upsample_argmax

Size = tuple[int, int]
Stages = Mapping[str, Callable[[Any], Any]]
FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
PREPROCESSING, ENCODER, DECODER, GRAPH, LAST = "preprocessing", "encoder", "decoder", "graph", "upsampling + arg-max"


@dataclass(frozen=True)
class Setting:
    """What a pipeline is built for."""

    folder: Path
    """Folder with the subfolders ours, hf and smp: the same weights in three layouts."""
    size: Size
    batch: int = 1
    device: Device = "cpu"


@dataclass(frozen=True)
class Pipeline:
    """Pixels (B, 3, H, W) uint8 to class indices (B, H, W)."""

    mask: Callable[[Tensor], Tensor]
    stages: Stages = field(default_factory=dict)
    """The same in stages, where they can be separated; each takes the result of the one before it."""


class DocumentedModel(nn.Module):
    """A model of transformers or segmentation-models-pytorch, used as their documentation shows."""

    def __init__(self, model: nn.Module, size: Size, card: Any, dtype: torch.dtype = FP32) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.size = size
        self.dtype = dtype
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


class ExportedLogits(nn.Module):
    """The part of our model that an exported graph holds: raw pixels to logits (B, h, w, K) at a quarter of the size.

    The logits of a pixel lie together, as the arg-max reads them, so that the runtimes need not transpose them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.model.normalize(image)).permute(0, 2, 3, 1).float()


def load_transformers(setting: Setting, dtype: torch.dtype = FP32) -> DocumentedModel:
    from transformers import SegformerForSemanticSegmentation

    model: Any = SegformerForSemanticSegmentation.from_pretrained(setting.folder / "hf").eval()
    card = segformer.load(setting.folder / "ours").card
    return DocumentedModel(model, setting.size, card, dtype).to(setting.device)


def load_smp(setting: Setting) -> DocumentedModel:
    import segmentation_models_pytorch as smp

    model = smp.from_pretrained(setting.folder / "smp").eval()
    return DocumentedModel(model, setting.size, segformer.load(setting.folder / "ours").card).to(setting.device)


def load_ours(setting: Setting, dtype: torch.dtype = FP32, *, compile: bool = False) -> Any:
    model = segformer.load(setting.folder / "ours").to(setting.device)
    return for_inference(model, None if dtype == FP32 else dtype, compile=compile)


def without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.inference_mode()(function)


def compiled(module: nn.Module, device: Device) -> Callable[[Tensor], Tensor]:
    mode = "max-autotune" if device == "cuda" else None
    return without_gradients(torch.compile(module, dynamic=False, mode=mode))


def transformers_eager(setting: Setting, dtype: torch.dtype) -> Pipeline:
    documented = load_transformers(setting, dtype)
    model: Any = documented.model
    stages = {
        PREPROCESSING: documented.normalize,
        ENCODER: lambda pixels: model.segformer(pixels, output_hidden_states=True).hidden_states,
        DECODER: model.decode_head,
        LAST: documented.classes,
    }
    return Pipeline(without_gradients(documented), {name: without_gradients(stage) for name, stage in stages.items()})


def ours_eager(setting: Setting, dtype: torch.dtype) -> Pipeline:
    model = load_ours(setting, dtype)
    stages = {
        PREPROCESSING: lambda images: model.normalize(images).to(dtype),
        ENCODER: model.encoder,
        DECODER: lambda maps: model.head(model.decoder(maps)),
        LAST: partial(upsample_argmax, size=setting.size),
    }
    return Pipeline(model.predict_mask, {name: without_gradients(stage) for name, stage in stages.items()})


def ours_compiled(setting: Setting, dtype: torch.dtype) -> Pipeline:
    model = load_ours(setting, dtype, compile=True)
    stages = {PREPROCESSING: model.normalize, GRAPH: model, LAST: partial(upsample_argmax, size=setting.size)}
    return Pipeline(model.predict_mask, {name: without_gradients(stage) for name, stage in stages.items()})


def export_onnx(module: nn.Module, setting: Setting, owner: str) -> Path:
    """Write an ONNX graph of fixed shapes, if it is not there yet."""
    path = setting.folder / f"{owner}_{setting.batch}x{setting.size[0]}x{setting.size[1]}.onnx"
    if not path.is_file():
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            images = torch.zeros(setting.batch, 3, *setting.size, dtype=torch.uint8)
            torch.onnx.export(module, (images,), path, dynamo=True, verbose=False, external_data=False)
    return path


def run_in_onnxruntime(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def run_in_openvino(path: Path, precision: str) -> Callable[[Tensor], Tensor]:
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


def transformers_onnxruntime(setting: Setting) -> Pipeline:
    return Pipeline(run_in_onnxruntime(export_onnx(load_transformers(setting), setting, "theirs")))


def transformers_openvino(setting: Setting, precision: str) -> Pipeline:
    return Pipeline(run_in_openvino(export_onnx(load_transformers(setting), setting, "theirs"), precision))


def ours_onnxruntime(setting: Setting) -> Pipeline:
    path = export_onnx(ExportedLogits(load_ours(setting)), setting, "ours")
    return with_argmax(run_in_onnxruntime(path), setting.size)


def ours_openvino(setting: Setting, precision: str) -> Pipeline:
    path = export_onnx(ExportedLogits(load_ours(setting)), setting, "ours")
    return with_argmax(run_in_openvino(path, precision), setting.size)


def with_argmax(graph: Callable[[Tensor], Tensor], size: Size) -> Pipeline:
    def logits(images: Tensor) -> Tensor:
        return graph(images).permute(0, 3, 1, 2)

    def last(scores: Tensor) -> Tensor:
        return upsample_argmax(scores, size)

    return Pipeline(lambda images: last(logits(images)), {GRAPH: logits, LAST: last})


PIPELINES: dict[str, Callable[[Setting], Pipeline]] = {
    "transformers eager fp32": partial(transformers_eager, dtype=FP32),
    "transformers eager bf16": partial(transformers_eager, dtype=BF16),
    "transformers eager fp16": partial(transformers_eager, dtype=FP16),
    "transformers compile fp32": lambda setting: Pipeline(compiled(load_transformers(setting), setting.device)),
    "transformers compile bf16": lambda setting: Pipeline(compiled(load_transformers(setting, BF16), setting.device)),
    "transformers compile fp16": lambda setting: Pipeline(compiled(load_transformers(setting, FP16), setting.device)),
    "transformers onnxruntime fp32": transformers_onnxruntime,
    "transformers openvino fp32": partial(transformers_openvino, precision="f32"),
    "transformers openvino bf16": partial(transformers_openvino, precision="bf16"),
    "smp eager fp32": lambda setting: Pipeline(without_gradients(load_smp(setting))),
    "ours eager fp32": partial(ours_eager, dtype=FP32),
    "ours eager bf16": partial(ours_eager, dtype=BF16),
    "ours eager fp16": partial(ours_eager, dtype=FP16),
    "ours compile fp32": partial(ours_compiled, dtype=FP32),
    "ours compile bf16": partial(ours_compiled, dtype=BF16),
    "ours compile fp16": partial(ours_compiled, dtype=FP16),
    "ours onnxruntime fp32": ours_onnxruntime,
    "ours openvino fp32": partial(ours_openvino, precision="f32"),
    "ours openvino bf16": partial(ours_openvino, precision="bf16"),
}
LEFT_OUT = {"cpu": {"fp16"}, "cuda": {"onnxruntime", "openvino"}}
"""Words in the names of the pipelines that are not measured on a device."""
REQUIREMENTS = {
    "transformers": "transformers",
    "smp": "segmentation_models_pytorch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
"""Package that a word in a pipeline's name requires."""


def missing_packages(name: str) -> list[str]:
    """Return the packages that a pipeline needs and that are not installed."""
    words = set(name.split())
    needed = [package for word, package in REQUIREMENTS.items() if word in words]
    if words & {"onnxruntime", "openvino"}:
        needed.append("onnxscript")
    return [package for package in needed if find_spec(package) is None]


def pipelines_on(device: Device) -> list[str]:
    return [name for name in PIPELINES if not LEFT_OUT[device] & set(name.split())]
