"""Layers and functions that several models share, such as StochasticDepth and weight initialization."""

import copy
import hashlib
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Return tokens as a map, without copying; the map is channels-last in memory.  (B, H*W, C) -> (B, C, H, W)"""
    return tokens.view(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


def as_tokens(features: Tensor) -> Tensor:
    """Return a map as tokens; a map that is channels-last in memory is not copied.  (B, C, H, W) -> (B, H*W, C)"""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def linear_of_gelu(hidden: Tensor, linear: nn.Module) -> Tensor:
    """Compute linear(gelu(hidden)) without keeping the output of the GELU for the backward pass.

    The backward pass recomputes that output from ``hidden``, which autograd keeps anyway.  This saves a quarter of the
    memory that a block of the encoder needs in training.
    """
    active = F.gelu(hidden)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return linear(active)  # type: ignore[no-any-return]  # nn.Module is untyped
    address = active.data_ptr()

    def pack(tensor: Tensor) -> Tensor | tuple[Tensor, torch.Size]:
        return (hidden, tensor.shape) if tensor.data_ptr() == address else tensor

    def unpack(kept: Tensor | tuple[Tensor, torch.Size]) -> Tensor:
        return F.gelu(kept[0]).view(kept[1]) if isinstance(kept, tuple) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return linear(active)  # type: ignore[no-any-return]


class StochasticDepth(nn.Module):
    """Skip a residual branch for randomly chosen samples during training; ``rate`` is the probability.  (B, N, C)"""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Set the branch of each chosen sample to 0, and scale up the other branches to keep the expected value."""
        if not self.training or self.rate == 0.0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.rate
        return branch * (kept.to(branch.dtype) / (1.0 - self.rate))


class AgainstZero(nn.Module):
    """Convert the single logit z of a binary head to the logits 0 and z of two classes.  (B, 1, h, w) -> (B, 2, h, w)

    The softmax probability of the second class is then the sigmoid of z, and the cross-entropy of the two logits is
    the binary cross-entropy of z.
    """

    def forward(self, logit: Tensor) -> Tensor:
        """Insert a channel of zeros before the logit."""
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def init_weights(module: nn.Module) -> None:
    """Initialize a layer as the authors do: linear from truncated N(0, 0.02^2), convolution from N(0, 2 / fan_out)."""
    if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        return  # tensors on the meta device have no values
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def sharing_copy(module: Module) -> Module:
    """Return a copy that shares the parameters of the module; buffers and attributes are copied."""
    return copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})


def weights_digest(module: nn.Module) -> str:
    """Return a digest of the names and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
