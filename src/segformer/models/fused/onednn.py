"""Fused oneDNN layers for inference on a CPU: a linear layer with bias, and a depthwise convolution with GELU."""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def onednn_dtypes() -> frozenset[torch.dtype]:
    """Return the data types for which fused oneDNN layers are available on this machine; the set may be empty."""
    layers = ("_linear_pointwise", "_convolution_pointwise")
    if (
        not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or platform.machine() not in {"x86_64", "AMD64"}
        or not all(hasattr(torch.ops.mkldnn, name) for name in layers)
    ):
        return frozenset()
    return frozenset({torch.float32} | ({torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()))


BAND = 1 << 21  # bytes of a map that are computed at a time; they fit into the processor's cache
ONEDNN = onednn_dtypes()
PLAIN = {Tensor, nn.Parameter}  # types of ordinary weights; quantized weights have other types


def is_eager_on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor is on a CPU and neither autograd, compilation, export nor tracing is active."""
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call,attr-defined]
    return tensor.device.type == "cpu" and not recorded


def quick_linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute F.linear for inference; oneDNN is used if possible, because it adds the bias in the same pass."""
    if tokens.dtype in ONEDNN and type(weight) in PLAIN:
        return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(tokens, weight, bias)


def quick_gelu_of_depthwise(features: Tensor, layer: nn.Conv2d) -> Tensor:
    """Compute gelu(layer(features)) of a 3x3 depthwise convolution for inference, if possible in one pass of oneDNN."""
    if features.dtype in ONEDNN and type(layer) is nn.Conv2d and type(layer.weight) in PLAIN:
        one = [1, 1]  # the value of padding, stride and dilation
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            features, layer.weight, layer.bias, one, one, one, layer.groups, "gelu", [], "none"
        )
    return F.gelu(layer(features))
