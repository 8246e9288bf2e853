"""oneDNN's fused layers for inference on a CPU: linear with bias, depthwise convolution with GELU."""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def onednn_dtypes() -> frozenset[torch.dtype]:
    """What oneDNN's fused layers, which torch's compiler uses, compute in on this processor."""
    layers = ("_linear_pointwise", "_convolution_pointwise")
    if (
        not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or platform.machine() not in {"x86_64", "AMD64"}
        or not all(hasattr(torch.ops.mkldnn, name) for name in layers)
    ):
        return frozenset()
    return frozenset({torch.float32} | ({torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()))


BAND = 1 << 21  # bytes of a map that are held at a time at inference: they stay in the processor's cache
ONEDNN = onednn_dtypes()
PLAIN = {Tensor, nn.Parameter}  # of weights; quantised ones have types of their own


def is_eager_on_cpu(tensor: Tensor) -> bool:
    """Whether a layer computes at once, for inference, on a CPU: not recorded for a gradient, traced or exported."""
    recorded = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call,attr-defined]
    return tensor.device.type == "cpu" and not recorded


def quick_linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear for inference, where possible oneDNN's, which adds the bias on the way.  (..., C_in) -> (..., C)"""
    if tokens.dtype in ONEDNN and type(weight) in PLAIN:
        return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(tokens, weight, bias)


def quick_gelu_of_depthwise(features: Tensor, layer: nn.Conv2d) -> Tensor:
    """gelu(layer(features)) for inference and a 3 x 3 depthwise layer, in one pass.  (B, C, H, W)"""
    if features.dtype in ONEDNN and type(layer) is nn.Conv2d and type(layer.weight) in PLAIN:
        one = [1, 1]  # padding, stride, dilation
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            features, layer.weight, layer.bias, one, one, one, layer.groups, "gelu", [], "none"
        )
    return F.gelu(layer(features))
