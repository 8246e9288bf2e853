"""What encoders and decoders share: tokens seen as a map and back, a GELU that is not kept, oneDNN's fused layers."""

import copy
import platform
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


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


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """View tokens as a map that is channels-last in memory, without a copy.  (B, H*W, C) -> (B, C, H, W)"""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


def as_tokens(features: Tensor) -> Tensor:
    """View a channels-last map as tokens, without a copy.  (B, C, H, W) -> (B, H*W, C)"""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def linear_of_gelu(hidden: Tensor, linear: nn.Module) -> Tensor:
    """linear(gelu(hidden)); on the way back the GELU is computed again from its input, which is kept anyway.

    A quarter of what a block of the encoder would keep for its gradient is kept no more.
    """
    active = F.gelu(hidden)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return linear(active)  # type: ignore[no-any-return]  # nn.Module is untyped
    place = active.data_ptr()

    def pack(tensor: Tensor) -> Tensor | tuple[Tensor, torch.Size]:
        return (hidden, tensor.shape) if tensor.data_ptr() == place else tensor

    def unpack(kept: Tensor | tuple[Tensor, torch.Size]) -> Tensor:
        return F.gelu(kept[0]).view(kept[1]) if isinstance(kept, tuple) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return linear(active)  # type: ignore[no-any-return]


def sharing_copy(module: Module) -> Module:
    """Return a copy that shares the parameters, but has a mode and settings of its own."""
    return copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})


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
